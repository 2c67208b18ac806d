// Charts as SVG texts without a browser. Loaded after ECharts; see echarts.py.
"use strict";

// Width of each character over the size of the type: there is no canvas to measure on.
const advances = new Map();

echarts.setPlatformAPI({
  measureText(text, font) {
    const size = parseFloat(/([\d.]+)px/.exec(font)[1]);
    let width = 0;
    for (const character of text) width += advances.get(character) ?? 0.6;
    return { width: width * size };
  },
});

function drawn(option, width, height, given) {
  for (const [character, advance] of Object.entries(given)) advances.set(character, advance);
  for (const series of option.series) {
    // Functions: a text template would read braces in a label as its own.
    const named = series.type === "pie";
    series.label.formatter = (shown) => (named ? `${shown.name}: ` : "") + shown.data.shown;
  }
  const chart = echarts.init(null, null, { renderer: "svg", ssr: true, width, height });
  chart.setOption(option);
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}
