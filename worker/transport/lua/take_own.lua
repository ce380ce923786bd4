-- Take up an entry that is pending under this consumer's name.
--
-- KEYS[1] requests          stream of requests
-- ARGV[1] group             consumer group
-- ARGV[2] consumer          name of the consumer
-- ARGV[3] entry_id          entry of the request
-- ARGV[4] least_deliveries  least delivery count to set
--
-- Returns {status, delivery count, fields}:
--   taken    with its delivery count and its fields
--   gone     another consumer owns it by now, or it was answered; nothing was written
--   trimmed  it was cut from the stream while pending; it is pending no more
--
-- Ownership is tested here: between a listing and this call its lease may have run out, and XCLAIM with a minimum idle
-- time of 0 would take it from another consumer.
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if #pending == 0 then
  return {'gone', 0, {}}
end
local count = math.max(pending[1][4], tonumber(ARGV[4]))
local claimed = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'RETRYCOUNT', count)
if not claimed[1] then
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
  return {'trimmed', 0, {}}
end
return {'taken', count, claimed[1][2]}
