#!/usr/bin/env ruby
# Issue and revoke from Ruby, with the gem xmlrpc (Debian: ruby-xmlrpc).
#
# chancery.rb URL FOLDER issue PURPOSE NAME REQUEST_ID
# chancery.rb URL FOLDER revoke SERIAL REASON REQUEST_ID
#
# URL is https://HOST:PORT/RPC2; FOLDER holds root.pem, caller.pem and caller.key. Exit code 0: done, 1: refused,
# 2: the call is wrong, 3: it is not known how it ended; run the same command again.
require "openssl"
require "uri"
require "xmlrpc/client"

# With these codes ok is false and nothing was refused: the same call can be made again.
TROUBLE = %w[outcome.unknown keyroom.unreachable keyroom.behind store.behind store.fork]
TROUBLE_FAULTS = [-32603, 4290] # an internal error; too many calls at once

class Unknown < StandardError; end

def connect(url, folder)
  u = URI(url)
  rpc = XMLRPC::Client.new3(host: u.host, port: u.port, path: u.path, use_ssl: true, timeout: 90)
  rpc.http.verify_mode = OpenSSL::SSL::VERIFY_PEER
  rpc.http.ca_file = File.join(folder, "root.pem")
  rpc.http.cert = OpenSSL::X509::Certificate.new(File.read(File.join(folder, "caller.pem")))
  rpc.http.key = OpenSSL::PKey.read(File.read(File.join(folder, "caller.key")))
  rpc
end

# Gives ok, msg and detail. params has a request_id, so asking again never does anything twice.
def ask(url, folder, method, params)
  why = nil
  [1, 2, 4, nil].each do |wait|
    begin
      ok, msg, detail = connect(url, folder).call(method, params)
      return ok, msg, detail if ok || !TROUBLE.include?(detail["code"])
      why = msg
    rescue XMLRPC::FaultException => e
      raise unless TROUBLE_FAULTS.include?(e.faultCode)
      why = e.faultString
    rescue SystemCallError, IOError, SocketError, Timeout::Error, OpenSSL::SSL::SSLError, RuntimeError => e
      why = e.message # the gem raises RuntimeError for an answer that is not XML-RPC
    end
    sleep wait if wait
  end
  raise Unknown, why
end

def finish(code, text)
  warn text
  exit code
end

finish 2, "usage: chancery.rb URL FOLDER issue PURPOSE NAME ID | revoke SERIAL REASON ID" if ARGV.size != 6
# In the locale C, where cron runs, Ruby takes arguments for ASCII.
url, folder, what, first, second, request_id = ARGV.map { |a| a.dup.force_encoding("UTF-8") }
begin
  if what == "issue"
    ok, msg, detail = ask(url, folder, "ca.issue", "purpose" => first, "cn" => second, "request_id" => request_id)
  elsif what == "revoke"
    ok, msg, detail = ask(url, folder, "ca.revoke", "serial" => first, "reason" => second, "request_id" => request_id)
  else
    finish 2, "issue or revoke"
  end
rescue XMLRPC::FaultException => e
  finish 2, "fault #{e.faultCode} #{e.faultString}"
rescue Unknown => e
  finish 3, "not known how it ended: #{e.message} - run the same command again"
end
finish 1, "refused: #{msg} #{detail["code"]}" unless ok
$stdout.sync = true # Ruby says nothing of what it cannot write when it ends
begin
  puts msg
  exit 1 if detail["revoked_at"] # a retry, and somebody has revoked the certificate since
  if detail["pkcs12"]
    # The same request_id always gets the same octets, so the file can be written again.
    File.open("#{request_id}.p12", "wb", 0o600) { |f| f.write(detail["pkcs12"]) }
    puts "password #{detail["password"]}"
  end
rescue SystemCallError => e
  finish 3, "done, and not written: #{e.message} - run the same command again"
end
