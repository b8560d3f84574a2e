/* Draws every canvas with `data-chart` from the JSON element that the attribute names. Colors come from dashboard.css and
   are read again when the theme changes. The table below each chart has the same numbers for screen readers. */
"use strict";
{
    const root = document.documentElement;
    const board = document.querySelector(".board");
    const locale = board ? board.dataset.locale : "en";
    const numbers = new Intl.NumberFormat(locale, { maximumFractionDigits: 2 });
    const short = new Intl.NumberFormat(locale, { notation: "compact" });
    const dayOfMonth = new Intl.DateTimeFormat(locale, { day: "numeric", month: "short", timeZone: "UTC" });
    const month = new Intl.DateTimeFormat(locale, { month: "short", timeZone: "UTC" });
    const charts = [];

    function color(name) {
        return getComputedStyle(board).getPropertyValue(`--${name}`).trim();
    }

    /** The axis label of a row: a short day or month, or a name of at most 22 characters. */
    function tick(key) {
        if (/^\d{4}-\d{2}-\d{2}$/.test(key)) {
            return dayOfMonth.format(new Date(key));
        }
        if (/^\d{4}-\d{2}$/.test(key)) {
            return month.format(new Date(`${key}-01`));
        }
        return key.length > 22 ? `${key.slice(0, 21)}…` : key;
    }

    function datasets(plot) {
        const lines = plot.style === "lines";
        const drawn = plot.series.map((series) => ({
            label: series.label, data: series.values, tone: series.tone, stack: "all",
            borderWidth: lines ? 2 : 0, pointRadius: lines ? 2 : 0, pointHitRadius: 12, spanGaps: false,
            maxBarThickness: 28,
        }));
        if (plot.limit) {
            drawn.push({
                label: "", data: plot.keys.map(() => plot.limit), tone: "limit", limit: true, borderWidth: 1.5,
                borderDash: [6, 4], pointRadius: 0, pointHitRadius: 0,
            });
        }
        return drawn.map(colored);
    }

    function colored(dataset) {
        const tone = color(`chart-${dataset.tone}`);
        return Object.assign(dataset, { borderColor: tone, backgroundColor: tone, hoverBackgroundColor: tone });
    }

    function paint(chart) {
        chart.data.datasets.forEach(colored);
        for (const scale of Object.values(chart.options.scales)) {
            scale.ticks.color = color("body-quiet-color");
            scale.grid.color = color("hairline-color");
            scale.border = { color: color("border-color") };
        }
        Object.assign(chart.options.plugins.tooltip, {
            backgroundColor: color("body-fg"), titleColor: color("body-bg"), bodyColor: color("body-bg"),
        });
        chart.update();
    }

    function options(plot) {
        const across = plot.style === "shares";
        const rows = {
            stacked: plot.style !== "lines", grid: { display: false },
            ticks: { maxRotation: 0, autoSkipPadding: 12, autoSkip: !across,
                     callback: (_, place) => tick(plot.keys[place]) },
        };
        const whole = plot.series.every((series) => series.values.every((value) => Number.isInteger(value)));
        const values = {
            stacked: plot.style !== "lines", beginAtZero: true, grid: {},
            ticks: { maxTicksLimit: 6, precision: whole ? 0 : undefined, callback: (value) => short.format(value) },
        };
        return {
            animation: false, maintainAspectRatio: false, locale, indexAxis: across ? "y" : "x",
            interaction: { mode: "index", axis: across ? "y" : "x", intersect: false },
            scales: across ? { x: values, y: rows } : { x: rows, y: values },
            plugins: {
                colors: { enabled: false },
                legend: { display: false },
                tooltip: {
                    filter: (item) => !item.dataset.limit,
                    callbacks: {
                        title: (items) => (items.length ? plot.labels[items[0].dataIndex] : ""),
                        label: (item) => `${item.dataset.label}: ${numbers.format(item.raw)} ${plot.unit}`,
                    },
                },
            },
        };
    }

    function draw(canvas) {
        const plot = JSON.parse(document.getElementById(canvas.dataset.chart).textContent);
        if (plot.style === "shares") {
            canvas.parentElement.style.height = `${plot.keys.length * 30 + 40}px`;
        }
        const chart = new Chart(canvas, {
            type: plot.style === "lines" ? "line" : "bar",
            data: { labels: plot.keys, datasets: datasets(plot) },
            options: options(plot),
        });
        charts.push(chart);
        paint(chart);
        canvas.closest(".chart").querySelectorAll(".legend button").forEach((button, place) => {
            button.addEventListener("click", () => {
                const shown = !chart.isDatasetVisible(place);
                chart.setDatasetVisibility(place, shown);
                chart.update("none");
                button.setAttribute("aria-pressed", String(shown));
            });
        });
    }

    function repaint() {
        charts.forEach(paint);
    }

    /** Prints in the light theme. */
    function followPrinting() {
        let theme;
        window.addEventListener("beforeprint", () => {
            theme = root.dataset.theme;
            root.dataset.theme = "light";
            repaint();
        });
        window.addEventListener("afterprint", () => {
            root.dataset.theme = theme;
            repaint();
        });
    }

    document.querySelectorAll("canvas[data-chart]").forEach(draw);
    new MutationObserver(repaint).observe(root, { attributes: true, attributeFilter: ["data-theme"] });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
    followPrinting();
}
