# Draws orders per second against writers, as SVG: awk -f chart.awk < lines "VARIANT WRITERS ORDERS_PER_SECOND".
# Writers double from one place to the next, so all of them have the same distance.
BEGIN {
	width = 760; height = 440
	left = 70; right = 150; top = 50; bottom = 60
	split("#7f7f7f #e6862b #b3433f #1f6fb2 #4a9a4a", color, " ")
}

NF == 3 && $2 > 0 {
	if (!($1 in known)) { known[$1] = ++variants; name[variants] = $1 }
	if (!($2 in place)) { place[$2] = ++places; writers[places] = $2 }
	value[$1, $2] = $3
	if ($3 > most) most = $3
}

# A round number not below the greatest value: 1, 2, 2.5 or 5 times a power of ten, four or five steps.
function nice_step(x,	power, n) {
	power = 10 ^ int(log(x / 4) / log(10))
	n = x / 4 / power
	return (n <= 1 ? 1 : n <= 2 ? 2 : n <= 2.5 ? 2.5 : n <= 5 ? 5 : 10) * power
}
function x_of(i) { return left + (places > 1 ? (i - 1) / (places - 1) : 0.5) * (width - left - right) }
function y_of(v) { return height - bottom - v / limit * (height - top - bottom) }

END {
	if (!variants || most <= 0) { print "chart.awk: no figures" > "/dev/stderr"; exit 1 }
	step = nice_step(most)
	limit = step * (int((most - 0.001) / step) + 1)
	printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"13\" role=\"img\">\n", width, height
	print "<title>Orders per second against writers, with flushes 1 ms longer</title>"
	printf "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n", width, height
	printf "<text x=\"%d\" y=\"26\" font-size=\"15\">Orders per second against writers, with flushes 1 ms longer</text>\n", left
	for (v = 0; v <= limit * 1.0001; v += step) {
		printf "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", left, width - right, y_of(v), y_of(v)
		printf "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%d</text>\n", left - 8, y_of(v) + 4, v
	}
	for (i = 1; i <= places; i++)
		printf "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%d</text>\n", x_of(i), height - bottom + 20, writers[i]
	printf "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">writers</text>\n", (left + width - right) / 2, height - 14
	for (k = 1; k <= variants; k++) {
		points = ""; last = ""
		for (i = 1; i <= places; i++)
			if ((name[k], writers[i]) in value) {
				points = points sprintf("%.1f,%.1f ", x_of(i), y_of(value[name[k], writers[i]]))
				last = value[name[k], writers[i]]
			}
		c = color[(k - 1) % 5 + 1]
		printf "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2.5\"/>\n", points, c
		n = split(points, each, " ")
		for (i = 1; i <= n; i++) {
			split(each[i], xy, ",")
			printf "<circle cx=\"%s\" cy=\"%s\" r=\"3\" fill=\"%s\"/>\n", xy[1], xy[2], c
		}
		label[k] = y_of(last) + 4
	}
	# Names beside the last points, apart from one another: from the topmost down.
	for (k = 1; k <= variants; k++) order[k] = k
	for (k = 2; k <= variants; k++)
		for (i = k; i > 1 && label[order[i]] < label[order[i - 1]]; i--) { t = order[i]; order[i] = order[i - 1]; order[i - 1] = t }
	for (k = 1; k <= variants; k++) {
		if (k > 1 && label[order[k]] < label[order[k - 1]] + 16) label[order[k]] = label[order[k - 1]] + 16
		printf "<text x=\"%d\" y=\"%.1f\" fill=\"%s\">%s</text>\n", width - right + 10, label[order[k]], color[(order[k] - 1) % 5 + 1], name[order[k]]
	}
	print "</svg>"
}
