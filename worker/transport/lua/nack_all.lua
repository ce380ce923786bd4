-- Make everything that is pending under a consumer's name claimable by others at once.
--
-- KEYS[1] requests       stream of requests
-- ARGV[1] group          consumer group
-- ARGV[2] consumer       name of the consumer
-- ARGV[3] idle_ms        idle milliseconds to set: the lease
-- ARGV[4] processing_id  entry that is being processed, '' = none
-- ARGV[5] limit          most entries in this call
-- ARGV[6] heir           consumer that gets them: nobody's name
--
-- Returns how many were nacked. The entry being processed keeps its delivery count, since it was tried; the others were
-- only read, which costs them none. Under another name they can neither be renewed nor committed by a process that
-- still runs; the name is removed with all dead consumers once its entries are claimed. An entry that was cut from
-- the stream stays where it is: XCLAIM would drop it unseen, and who claims it next reports it.
local given = 0
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[5], ARGV[2])
for _, row in ipairs(pending) do
  local count = row[4]
  if row[1] ~= ARGV[4] then
    count = math.max(0, count - 1)
  end
  if #redis.call('XRANGE', KEYS[1], row[1], row[1]) > 0 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[6], 0, row[1], 'IDLE', ARGV[3], 'RETRYCOUNT', count, 'JUSTID')
    given = given + 1
  end
end
return given
