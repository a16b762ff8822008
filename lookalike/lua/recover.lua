-- The image that tried a paused host was answered: the pause is over, and the rate begins to grow.
state['until'], state.pause, state.paused_at, state.prober, state.probe_until = nil, nil, nil, nil, nil
if state.slow then
    state.grown = now
end
save()
return '0'
