# Medians and their confidence intervals, of the lines that against-perftest collects: test, round, and the
# microseconds of zcmi, perftest and perftest again.

{
    n = ++count[$1]
    zcmi[$1, n] = $3
    perftest[$1, n] = $4
    ratio[$1, n] = $3 / $4
    noise[$1, n] = $5 / $4
}

END {
    print "| test | size | pairs | zcmi µs | perftest µs | zcmi / perftest (95 %) | perftest / perftest (95 %) |"
    print "|---|---|---|---|---|---|---|"
    listed = split(tests, names, " ")
    for (i = 1; i <= listed; i++) {
        test = names[i]
        ours = middle(zcmi, test)
        theirs = middle(perftest, test)
        r = middle(ratio, test); r_low = low; r_high = high
        s = middle(noise, test); s_low = low; s_high = high; s_min = least; s_max = most
        printf "| %s | %d | %d | %.1f | %.1f | %.3f (%.3f to %.3f) | %.3f (%.3f to %.3f) |\n", \
            test, size, count[test], ours, theirs, r, r_low, r_high, s, s_low, s_high
        if (json != "") {
            line = "{\"test\":\"%s\",\"size\":%d,\"iterations\":%d,\"pairs\":%d,\"zcmi_us\":%.2f,\"perftest_us\":%.2f," \
                "\"ratio\":%.4f,\"ratio_low\":%.4f,\"ratio_high\":%.4f,\"self_ratio\":%.4f,\"self_low\":%.4f," \
                "\"self_high\":%.4f,\"self_min\":%.4f,\"self_max\":%.4f}\n"
            printf line, test, size, iterations, count[test], ours, theirs, r, r_low, r_high, s, s_low, s_high, \
                s_min, s_max > json
        }
    }
}

# The median of values[test, 1..count]; sets low and high, its confidence interval, and least and most.
function middle(values, test,    n, j, k, value, chance, below, sorted) {
    n = count[test]
    for (j = 1; j <= n; j++) {
        value = values[test, j]
        for (k = j - 1; k >= 1 && sorted[k] > value; k--) sorted[k + 1] = sorted[k]
        sorted[k + 1] = value
    }
    least = sorted[1]
    most = sorted[n]
    # The true median lies below the k-th smallest of n values with the chance that at most k - 1 of n fair coins
    # show heads. The largest k for which that is at most 2.5 % gives the interval; too few values give all of it.
    chance = 1 / 2 ^ n
    below = chance
    for (k = 0; below + chance * (n - k) / (k + 1) <= 0.025; k++) {
        chance *= (n - k) / (k + 1)
        below += chance
    }
    low = sorted[k + 1]
    high = sorted[n - k]
    return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2
}
