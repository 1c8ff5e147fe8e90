-- The leaves that name CAs and the root's lists, among all the others: x'...' is "type":"ceremony. with
-- its quotes, which no text inside a leaf can contain unescaped.
CREATE INDEX leaf_ceremony ON leaf (position) WHERE instr(leaf, x'2274797065223a22636572656d6f6e792e') > 0;

-- What ends next.
CREATE INDEX certificate_expiry ON certificate (not_after, intent) WHERE state = 'live';
