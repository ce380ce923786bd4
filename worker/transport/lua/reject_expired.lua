-- Reject a request whose deadline passed while no worker could read it.
--
-- KEYS[1]   rejections   stream of rejections
-- KEYS[2]   request      hash of the request id
-- ARGV[1]   consumer     name of the worker that rejects it
-- ARGV[2]   entry_id     entry of the request
-- ARGV[3]   remember_ms  milliseconds to remember it
-- ARGV[4]   deadline_ms  deadline in epoch milliseconds
-- ARGV[5]   fingerprint  digest of what the request asks
-- ARGV[6]   purpose      trade | probe, remembered beside the outcome
-- ARGV[7..] outcome      field, value, field, value … of the rejection, opaque
--
-- Returns 1 if it was rejected now, 0 if its id has an outcome already or its deadline has not passed by the server's
-- clock; nothing was written then. The entry stays where it is: whoever reads it finds the outcome and acknowledges it.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if now <= tonumber(ARGV[4]) then
  return 0
end
local kind = redis.call('TYPE', KEYS[2])['ok']
if kind ~= 'hash' and kind ~= 'none' then
  redis.call('DEL', KEYS[2])
end
if redis.call('HGET', KEYS[2], 'entry') then
  return 0
end
local outcome = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 7))
redis.call('HSET', KEYS[2], 'state', 'rejected', 'stream', KEYS[1], 'entry', outcome, 'request_entry', ARGV[2],
  'worker', ARGV[1], 'at_ms', string.format('%.0f', now), 'asked_sha256', ARGV[5],
  'purpose', ARGV[6])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
