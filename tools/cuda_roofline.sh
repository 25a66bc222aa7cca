#!/bin/sh
# The floors of phase 6's products on several cards, from bytes, operations and data sheets, and
# beside them what was measured, if results/cuda-kernels.csv has it: results/cuda-roofline.md.
set -eu
trap 'rm -f results/cuda-roofline.md.new' EXIT
cd "$(dirname "$0")/.."
csv=results/cuda-kernels.csv
[ -f "$csv" ] || csv=/dev/null
awk -F, '
BEGIN { int8_x = " · int8" }
# config "kernel 8 int4-g128 8192x8192 m=16": the fastest kernel of each product. Kernel 11 and the
# variant "(int8)" of kernel 5 make int8 of x: their products are "int4-g128 · int8".
NR == 1 { for (i = 1; i <= NF; i++) { if ($i == "us") us = i; if ($i == "config") config = i } next }
us && $us != "" {
    split($config, word, " ")
    first = word[3] == "(int8)" ? 4 : 3
    format = word[first] (first == 4 || word[2] == 11 ? int8_x : "")
    shape = format " " word[first + 1] " " word[first + 2]
    if (!(shape in best) || $us < best[shape]) best[shape] = $us
}
function floor_us(bytes, ops, gb_s, tflops,   memory, arithmetic) {
    memory = bytes / gb_s / 1e3
    arithmetic = ops / tflops / 1e6
    return memory > arithmetic ? memory : arithmetic
}
# x is read in float16, and as int8 written once and read again.
function row(name, bits, n, k, m, int8,   bytes, ops, shape, i) {
    bytes = n * k * bits / 8 + m * k * (int8 ? 4 : 2) + m * n * 4
    ops = 2 * n * k * m
    name = name (int8 ? int8_x : "")
    printf "| %s | %d | %.1f | %.1f |", name, m, bytes / 1e6, ops / bytes
    for (i = 1; i <= cards; i++)
        printf " %.1f |", floor_us(bytes, ops, gb_s[i], int8 ? tops[i] : tflops[i])
    shape = name " " n "x" k (m > 1 ? " m=" m : " ")
    printf " %s |\n", shape in best ? sprintf("%.1f", best[shape]) : "–"
}
function card(name, bandwidth, halves, bytes) {
    names[++cards] = name
    gb_s[cards] = bandwidth
    tflops[cards] = halves
    tops[cards] = bytes
}
END {
    # GB/s, and 10^12 dense operations a second, as the makers say: float16 with sums in float32,
    # int8 with sums in int32
    card("RTX 3060 Ti", 448, 32.4, 129.6)
    card("A100", 2039, 312, 624)
    card("H100", 3350, 989, 1979)
    card("H200", 4800, 989, 1979)
    print "Floors in µs of a product of 8192 × 8192 weights, from data sheets: the longer of its"
    print "bytes over the bandwidth and its operations over the rate of the tensor cores. They are"
    print "computed; the last column is the fastest kernel of the ladder, measured, and is empty"
    print "where `results/cuda-kernels.csv` has nothing. \"int8 · int8\": x becomes int8 too, and the"
    print "rate is that of int8."
    print ""
    printf "| Format | M | MB | ops/byte |"
    for (i = 1; i <= cards; i++) printf " %s |", names[i]
    print " measured |"
    printf "|:--|--:|--:|--:|"
    for (i = 1; i <= cards; i++) printf "--:|"
    print "--:|"
    n = split("1 8 16 64 256 512 2048", ms, " ")
    for (i = 1; i <= n; i++) row("f16", 16, 8192, 8192, ms[i])
    for (i = 1; i <= n; i++) row("int8", 8, 8192, 8192, ms[i])
    for (i = 1; i <= n; i++) row("int4-g128", 4.125, 8192, 8192, ms[i])
    for (i = 1; i <= n; i++) row("int8", 8, 8192, 8192, ms[i], 1)
    for (i = 1; i <= n; i++) row("int4-g128", 4.125, 8192, 8192, ms[i], 1)
}' "$csv" >results/cuda-roofline.md.new
mv results/cuda-roofline.md.new results/cuda-roofline.md
echo results/cuda-roofline.md
