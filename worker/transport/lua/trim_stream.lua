-- Cut a stream by age, never past what a group still needs.
--
-- KEYS[1] stream        stream to cut
-- ARGV[1] retention_ms  retention in milliseconds
-- ARGV[2] limit         most entries to cut in this call, 0 = look only
-- ARGV[3] needs_group   group without which nothing may be cut, '' = a stream without groups is cut by age alone
--
-- Returns {entries cut, names of groups that keep entries older than the retention}.
--
-- The age is that of the server's clock. A group needs everything from its oldest pending entry on, and everything
-- after its last delivered one. Ids are compared part by part as decimal texts: a sequence number may exceed what a
-- Lua number can represent. The approximate cut drops whole nodes and is cheap; when it finds none left, the exact one has
-- less than a node to do.
local function less(left, right)
  local left_ms, left_seq = string.match(left, '^(%d+)-(%d+)$')
  local right_ms, right_seq = string.match(right, '^(%d+)-(%d+)$')
  local a, b = left_ms, right_ms
  if a == b then
    a, b = left_seq, right_seq
  end
  if #a ~= #b then
    return #a < #b
  end
  return a < b
end

if redis.call('EXISTS', KEYS[1]) == 0 then
  return {0, {}}
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local aged = string.format('%.0f-0', math.max(0, now - tonumber(ARGV[1])))
local cut = aged
local behind = {}
local allowed = ARGV[3] == ''

for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for place = 1, #flat, 2 do
    group[flat[place]] = flat[place + 1]
  end
  allowed = allowed or group['name'] == ARGV[3]
  local needed = group['last-delivered-id']
  -- Nothing comes after the greatest id of all, and the server refuses it as an open beginning.
  local unread = {}
  if less(needed, aged) then
    unread = redis.call('XRANGE', KEYS[1], '(' .. needed, aged, 'COUNT', 1)
  end
  local late = #unread > 0 and less(unread[1][1], aged)
  if group['pending'] > 0 then
    local oldest = redis.call('XPENDING', KEYS[1], group['name'])[2]
    late = late or less(oldest, aged)
    if less(oldest, needed) then
      needed = oldest
    end
  end
  if late then
    behind[#behind + 1] = group['name']
  end
  if less(needed, cut) then
    cut = needed
  end
end

local limit = tonumber(ARGV[2])
if limit == 0 or not allowed then
  return {0, behind}
end
local gone = redis.call('XTRIM', KEYS[1], 'MINID', '~', cut, 'LIMIT', limit)
if gone == 0 then
  gone = redis.call('XTRIM', KEYS[1], 'MINID', '=', cut)
end
return {gone, behind}
