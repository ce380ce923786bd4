-- Leave an entry to another worker: to one that can answer it, or for a while to whoever can by then.
--
-- KEYS[1] requests     stream of requests
-- KEYS[2] request      hash of the request id
-- KEYS[3] given        set of the entries that were given to the heir and not taken up yet
-- ARGV[1] group        consumer group
-- ARGV[2] consumer     name of the consumer that leaves it
-- ARGV[3] entry_id     entry of the request
-- ARGV[4] heir         consumer that can answer it, '' = none is known
-- ARGV[5] lease_ms     the lease
-- ARGV[6] deliveries   delivery count of the entry, this delivery included
-- ARGV[7] pause_ms     least milliseconds until it may be claimed, where there is no heir
-- ARGV[8] grace_ms     milliseconds for which it is left without an heir, '' = as long as it takes
-- ARGV[9] remember_ms  milliseconds to remember since when it is left
--
-- Returns:
--   given    the heir owns it under a new lease, and finds it in its set
--   left     any worker may claim it after a pause, which grows with the time for which it has been left
--   over     it has been left for longer than the grace; this consumer owns it still, and rejects it
--   fenced   another consumer owns the entry; nothing was written
--   trimmed  it was cut from the stream meanwhile; it is pending no more
--
-- Neither way costs a delivery: the heir's count stays as it is, and a claim raises the other one again.
local owned = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if #owned == 0 then
  return 'fenced'
end
if #redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3]) == 0 then
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
  return 'trimmed'
end
local kind = redis.call('TYPE', KEYS[2])['ok']
if kind ~= 'hash' and kind ~= 'none' then
  redis.call('DEL', KEYS[2])
end
if ARGV[4] ~= '' then
  redis.call('SADD', KEYS[3], ARGV[3])
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
  redis.call('HDEL', KEYS[2], 'left_at_ms')
  redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[4], 0, ARGV[3], 'JUSTID')
  return 'given'
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local since = tonumber(redis.call('HGET', KEYS[2], 'left_at_ms') or now)
local waited = math.max(0, now - since)
if ARGV[8] ~= '' and waited >= tonumber(ARGV[8]) then
  redis.call('HDEL', KEYS[2], 'left_at_ms')
  return 'over'
end
redis.call('HSET', KEYS[2], 'left_at_ms', string.format('%.0f', since))
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[9]) then
  redis.call('PEXPIRE', KEYS[2], ARGV[9])
end
local pause = math.max(tonumber(ARGV[7]), math.floor(waited / 2))
if ARGV[8] ~= '' then
  pause = math.min(pause, tonumber(ARGV[8]) - waited)
end
local idle = math.max(0, tonumber(ARGV[5]) - pause)
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3],
  'IDLE', string.format('%.0f', idle), 'RETRYCOUNT', math.max(0, tonumber(ARGV[6]) - 1), 'JUSTID')
return 'left'
