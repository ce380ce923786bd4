-- Give back everything that is pending under a consumer's name, claimable by others at once.
--
-- KEYS[1] stream of requests
-- ARGV[1] group   ARGV[2] consumer   ARGV[3] idle milliseconds to set: the lease   ARGV[4] entry in work, '' = none
-- ARGV[5] most entries to give back      ARGV[6] consumer that is given them: nobody
--
-- Returns how many were given back. The entry in work keeps its delivery count, since it was tried; the others were
-- only read, which costs them none. Under another name they can neither be renewed nor committed by a process that
-- still breathes; the name is removed with all dead consumers once its entries are claimed. An entry that was cut from
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
