-- Says when images that cannot be asked for now are to come back: in groups that the host can serve within a moment, one
-- after the other, behind all that were sent away before them. So no image comes back in vain again and again, and the
-- host is never idle while something waits. Returns, group by group, how many images, and in how many seconds.
local images = tonumber(ARGV[2])
local cost = tonumber(ARGV[3])      -- requests that an image needs
local limit = tonumber(ARGV[4])     -- limit of the rate; 0: none
local urgent = tonumber(ARGV[5])    -- 1: not behind the others
local SPAN = 2                      -- seconds that the images of a group keep the host busy

local free = math.max(now, state['until'] or 0)

-- Images a second at a time to come: a slowed host will have become faster by then.
local function pace(at)
    local rate = effective(limit)
    if rate == 0 then
        return math.max(observed() / cost, 1)
    end
    if state.slow and rate == state.slow then
        rate = state.slow * GROWTH ^ math.min(math.max(0, at - free), KEPT)
        rate = math.min(rate, limit > 0 and limit or state.ceiling)
    end
    return rate / cost
end

local groups = {}
local at = urgent == 1 and math.max(free, now + BURST) or math.max(state.horizon or 0, free)
while images > 0 do
    local rate = pace(at)
    local group = urgent == 1 and images or math.min(images, math.max(1, math.floor(rate * SPAN)))
    groups[#groups + 1] = group
    groups[#groups + 1] = tostring(at - now)
    images = images - group
    at = at + group / rate
end
if urgent == 0 then
    state.horizon = at
end
save()
return groups
