"""Facts as the engines take them: columns, keys, clocks, bags of events, arguments of derived functions."""
