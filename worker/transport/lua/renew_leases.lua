-- Renew the leases of entries that this consumer is still working on.
--
-- KEYS[1]   requests   stream of requests
-- ARGV[1]   group      consumer group
-- ARGV[2]   consumer   name of the consumer
-- ARGV[3..] entry_ids  entries in flight
--
-- Returns the ids that another consumer owns now. Ownership is tested first: XCLAIM with a minimum idle time of 0 would
-- steal an entry back from the consumer that claimed it. An entry that is not pending at all was answered a moment ago.
-- JUSTID leaves the delivery count alone. XCLAIM drops an entry that was cut from the stream, whose outcome could then
-- not be committed any more; so that one is not renewed.
local lost = {}
for place = 3, #ARGV do
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[place], ARGV[place], 1)
  if #pending > 0 and pending[1][2] ~= ARGV[2] then
    lost[#lost + 1] = ARGV[place]
  elseif #pending > 0 and #redis.call('XRANGE', KEYS[1], ARGV[place], ARGV[place]) > 0 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[place], 'JUSTID')
  end
end
return lost
