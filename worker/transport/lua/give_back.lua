-- Give an entry back to the group: at once when a worker leaves, after a pause when its processing raised.
--
-- KEYS[1] stream of requests   KEYS[2] hash of the request id
-- ARGV[1] group   ARGV[2] consumer   ARGV[3] entry id
-- ARGV[4] idle milliseconds to set: the lease = claimable now, the lease less a pause = claimable after the pause
-- ARGV[5] delivery count to set
-- ARGV[6] last error, '' = none   ARGV[7] milliseconds to remember it
--
-- Returns 1 if given back, 0 if another consumer owns the entry (nothing was written), 2 if it was cut from the stream
-- meanwhile, so that nobody can be given it; it is pending no more.
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
