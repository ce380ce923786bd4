-- Publish the one outcome of a request, remember its id and acknowledge its entry, in one step.
--
-- KEYS[1]   requests     stream of requests
-- KEYS[2]   outcomes     stream of the outcome: results, probes or rejections
-- KEYS[3]   request      hash of the request id
-- ARGV[1]   group        consumer group
-- ARGV[2]   consumer     name of the consumer
-- ARGV[3]   entry_id     entry of the request
-- ARGV[4]   state        done | rejected
-- ARGV[5]   remember_ms  milliseconds to remember it
-- ARGV[6]   deadline_ms  deadline in epoch milliseconds, '' = none
-- ARGV[7]   fingerprint  digest of what the request asks
-- ARGV[8]   purpose      trade | probe, remembered beside the outcome
-- ARGV[9]   most         approximate length at which the outcome's stream is cut, '' = it is not cut here
-- ARGV[10..] outcome     field, value, field, value … of the outcome, opaque; none: is one needed?
--
-- Returns {status, outcome entry id}:
--   committed  published now
--   duplicate  this id already has an outcome; only acknowledged
--   conflict   likewise, and that outcome answers another question: two producers took one id
--   fenced     another consumer owns the entry; nothing was written
--   late       the deadline has passed by the server's clock; nothing was written
--   open       this id has no outcome, and none was given; nothing was written
--
-- The remembered id is looked at before ownership: a caller that lost the reply of its own success no longer finds
-- the entry pending, and must be answered "duplicate", not "fenced". XADD is the first write: out of memory, the server
-- refuses the whole script there, while a script that acknowledged first would lose the outcome.
-- A key of another type under the id is nobody's memory; left there it would keep the entry from ever having an outcome.
local kind = redis.call('TYPE', KEYS[3])['ok']
if kind ~= 'hash' and kind ~= 'none' then
  redis.call('DEL', KEYS[3])
end
local remembered = redis.call('HMGET', KEYS[3], 'entry', 'asked_sha256')
if remembered[1] then
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
  local other = remembered[2] and remembered[2] ~= ARGV[7]
  return {other and 'conflict' or 'duplicate', remembered[1]}
end

if #ARGV < 10 then
  return {'open', ''}
end

local owned = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if #owned == 0 then
  return {'fenced', ''}
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if ARGV[4] == 'done' and ARGV[6] ~= '' and now > tonumber(ARGV[6]) then
  return {'late', ''}
end

local outcome
if ARGV[9] ~= '' then
  outcome = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[9], '*', unpack(ARGV, 10))
else
  outcome = redis.call('XADD', KEYS[2], '*', unpack(ARGV, 10))
end
redis.call('HSET', KEYS[3], 'state', ARGV[4], 'stream', KEYS[2], 'entry', outcome,
  'request_entry', ARGV[3], 'worker', ARGV[2], 'at_ms', string.format('%.0f', now), 'asked_sha256', ARGV[7],
  'purpose', ARGV[8])
redis.call('PEXPIRE', KEYS[3], ARGV[5])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
return {'committed', outcome}
