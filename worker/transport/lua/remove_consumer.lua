-- Remove a consumer without pending entries: one that no process is, or the one that leaves.
--
-- KEYS[1] requests   stream of requests
-- KEYS[2] heartbeat  heartbeat of the consumer
-- ARGV[1] group      consumer group
-- ARGV[2] consumer   name of the consumer
-- ARGV[3] leaves     1 = the consumer itself leaves, so that it may still beat
--
-- Returns 1 if removed, 0 if it beats or has entries pending.
--
-- One step, since XGROUP DELCONSUMER discards what is pending: between a look and a removal of two commands an
-- entry could be delivered. A living consumer whose heartbeat a flush removed is created again by its next read.
if ARGV[3] ~= '1' and redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then
  return 0
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
