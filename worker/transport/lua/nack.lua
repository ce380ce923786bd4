-- Nack an entry: claimable at once when a worker leaves, after a pause when its processing raised.
--
-- KEYS[1] requests     stream of requests
-- KEYS[2] request      hash of the request id
-- ARGV[1] group        consumer group
-- ARGV[2] consumer     name of the consumer
-- ARGV[3] entry_id     entry of the request
-- ARGV[4] idle_ms      idle milliseconds to set: the lease = claimable now, less = claimable later
-- ARGV[5] deliveries   delivery count to set
-- ARGV[6] error        last error, '' = none
-- ARGV[7] remember_ms  milliseconds to remember it
--
-- Returns 1 if nacked, 0 if another consumer owns the entry (nothing was written), 2 if it was cut from the stream
-- meanwhile, so that nobody can claim it; it is pending no more.
local owned = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if #owned == 0 then
  return 0
end
if #redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3]) == 0 then
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
  return 2
end
if ARGV[6] ~= '' then
  local kind = redis.call('TYPE', KEYS[2])['ok']
  if kind ~= 'hash' and kind ~= 'none' then
    redis.call('DEL', KEYS[2])
  end
  redis.call('HSET', KEYS[2], 'last_error', ARGV[6])
  -- Never shorter: the same hash remembers the outcome of an id that was answered before.
  if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[7]) then
    redis.call('PEXPIRE', KEYS[2], ARGV[7])
  end
end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'IDLE', ARGV[4], 'RETRYCOUNT', ARGV[5], 'JUSTID')
return 1
