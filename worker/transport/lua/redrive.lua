-- Put a rejected request back on its stream under the same request id, and remove its rejection, in one step.
--
-- KEYS[1]   requests      stream of requests
-- KEYS[2]   rejections    stream of rejections
-- KEYS[3]   request       hash of the request id
-- ARGV[1]   rejection_id  entry of the rejection
-- ARGV[2]   code          code of the rejection
-- ARGV[3]   remember_ms   milliseconds to remember it
-- ARGV[4..] fields        field, value, field, value … of the request, its request_id among them; opaque bytes
--
-- Returns {status, detail}:
--   redriven    added now, as entry `detail`; the request id may have an outcome again
--   already     this rejection was put back before, as entry `detail` ('' = not known any more); nothing was written
--   answered    the request id has a vector, entry `detail`; nothing was written
--   superseded  the request id was rejected again since, by entry `detail`; nothing was written
--
-- The rejection itself goes: a request id never has an entry on rejections and one on results, and repeated the
-- script finds no rejection the second time, so it adds once, however long ago the first time was. XADD is the first
-- write: out of memory, the server refuses the whole script there.
local remembered = redis.call('HMGET', KEYS[3], 'state', 'entry', 'redriven_from', 'redriven_entry')
if remembered[1] == 'done' then
  return {'answered', remembered[2]}
end
if #redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1]) == 0 then
  return {'already', remembered[3] == ARGV[1] and remembered[4] or ''}
end
if remembered[2] and remembered[2] ~= ARGV[1] then
  return {'superseded', remembered[2]}
end

local entry = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 4))
redis.call('HDEL', KEYS[3], 'state', 'stream', 'entry', 'last_error')
redis.call('HINCRBY', KEYS[3], 'redrives', 1)
redis.call('HSET', KEYS[3], 'redriven_from', ARGV[1], 'redriven_entry', entry, 'redriven_code', ARGV[2])
if redis.call('PTTL', KEYS[3]) < tonumber(ARGV[3]) then
  redis.call('PEXPIRE', KEYS[3], ARGV[3])
end
redis.call('XDEL', KEYS[2], ARGV[1])
return {'redriven', entry}
