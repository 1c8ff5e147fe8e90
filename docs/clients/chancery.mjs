#!/usr/bin/env node
// Issue and revoke from Node, with nothing but Node.
//
// chancery.mjs URL FOLDER issue PURPOSE NAME REQUEST_ID
// chancery.mjs URL FOLDER revoke SERIAL REASON REQUEST_ID
//
// URL is https://HOST:PORT/rpc; FOLDER holds root.pem, caller.pem and caller.key. Exit code 0: done, 1: refused,
// 2: the call is wrong, 3: it is not known how it ended; run the same command again.
import { readFileSync, writeFileSync, writeSync } from "node:fs";
import { request } from "node:https";
import { setTimeout as sleep } from "node:timers/promises";

// With these codes ok is false and nothing was refused: the same call can be made again.
const TROUBLE = ["outcome.unknown", "keyroom.unreachable", "keyroom.behind", "store.behind", "store.fork"];
const TROUBLE_FAULTS = [-32603, 4290]; // an internal error; too many calls at once

function finish(code, text) {
  console.error(text);
  process.exit(code);
}

function post(url, folder, body) {
  return new Promise((resolve, reject) => {
    const call = request(url, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) },
      ca: readFileSync(`${folder}/root.pem`),
      cert: readFileSync(`${folder}/caller.pem`),
      key: readFileSync(`${folder}/caller.key`),
      signal: AbortSignal.timeout(90_000), // the service gives up after 60 seconds
    });
    call.on("error", reject);
    call.on("response", async (response) => {
      try {
        const chunks = [];
        for await (const chunk of response) chunks.push(chunk);
        if (response.statusCode !== 200) throw new Error(`HTTP ${response.statusCode}`);
        resolve(JSON.parse(Buffer.concat(chunks).toString()));
      } catch (error) {
        reject(error);
      }
    });
    call.end(body);
  });
}

// Gives ok, msg and detail. params has a request_id, so asking again never does anything twice.
async function ask(url, folder, method, params) {
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
  let why;
  for (const wait of [1000, 2000, 4000, 0]) {
    try {
      const { error, result } = await post(url, folder, body);
      if (error && !TROUBLE_FAULTS.includes(error.code)) finish(2, `fault ${error.code} ${error.message}`);
      if (result && (result.ok || !TROUBLE.includes(result.detail.code))) return result;
      why = error ? error.message : result.msg;
    } catch (error) {
      why = error.message;
    }
    await sleep(wait);
  }
  finish(3, `not known how it ended: ${why} - run the same command again`);
}

const [url, folder, what, first, second, id] = process.argv.slice(2);
if (process.argv.length !== 8 || !["issue", "revoke"].includes(what)) {
  finish(2, "usage: chancery.mjs URL FOLDER issue PURPOSE NAME ID | revoke SERIAL REASON ID");
}
const { ok, msg, detail } =
  what === "issue"
    ? await ask(url, folder, "ca.issue", { purpose: first, cn: second, request_id: id })
    : await ask(url, folder, "ca.revoke", { serial: first, reason: second, request_id: id });
if (!ok) finish(1, `refused: ${msg} ${detail.code}`);
try {
  writeSync(1, `${msg}\n`); // console.log would not tell whether it was written
  if (detail.revoked_at) process.exit(1); // a retry, and somebody has revoked the certificate since
  if (detail.pkcs12) {
    // The same request_id always gets the same octets, so the file can be written again.
    writeFileSync(`${id}.p12`, Buffer.from(detail.pkcs12, "base64"), { mode: 0o600 });
    writeSync(1, `password ${detail.password}\n`);
  }
} catch (error) {
  finish(3, `done, and not written: ${error.message} - run the same command again`);
}
