//! Draws the results as plots, one SVG file each.

use std::{error::Error, path::Path};

use plotters::prelude::*;

use crate::{outcome::Outcome, plan::Plan, registry::Contender, rounds::Results};

type Figure = fn(&Outcome) -> Option<f64>;

/// A contender's index in the list, the contender, and its points.
type Line<'a> = (usize, &'a Contender, Vec<(f64, f64)>);

struct Plot {
    file: &'static str,
    title: &'static str,
    x: &'static str,
    y: &'static str,
    /// The prefix of the works' names. The rest of a name is the x value.
    works: &'static str,
    of: Figure,
}

const PLOTS: &[Plot] = &[
    Plot {
        file: "commits.svg",
        title: "Durable commits per second, 256 B",
        x: "tasks, or threads (at most 256)",
        y: "commits per second",
        works: "commit/",
        of: |outcome| Some(outcome.per_second()),
    },
    Plot {
        file: "commits-p50.svg",
        title: "Durable commits, median latency",
        x: "tasks, or threads (at most 256)",
        y: "µs",
        works: "commit/",
        of: |outcome| outcome.latency.map(|latency| latency.p50),
    },
    Plot {
        file: "commits-p99.svg",
        title: "Durable commits, 99th percentile of latency",
        x: "tasks, or threads (at most 256)",
        y: "µs",
        works: "commit/",
        of: |outcome| outcome.latency.map(|latency| latency.p99),
    },
    Plot {
        file: "appends.svg",
        title: "Appends per second without sync, 256 B",
        x: "tasks, or threads (at most 256)",
        y: "appends per second",
        works: "append/",
        of: |outcome| Some(outcome.per_second()),
    },
    Plot {
        file: "enqueue.svg",
        title: "Appends handed over by one task, without sync",
        x: "bytes of a record",
        y: "MiB per second",
        works: "enqueue/",
        of: |outcome| Some(outcome.mib_per_second()),
    },
    Plot {
        file: "record-size.svg",
        title: "Durable commits per second: 8 tasks, by record size",
        x: "bytes of a record",
        y: "commits per second",
        works: "commit-of/",
        of: |outcome| Some(outcome.per_second()),
    },
    Plot {
        file: "record-size-p99.svg",
        title: "Durable commits, 99th percentile of latency: 8 tasks, by record size",
        x: "bytes of a record",
        y: "µs",
        works: "commit-of/",
        of: |outcome| outcome.latency.map(|latency| latency.p99),
    },
    Plot {
        file: "ring-size.svg",
        title: "Durable commits per second: 64 tasks, by size of the ring",
        x: "bytes of the ring",
        y: "commits per second",
        works: "ring/",
        of: |outcome| Some(outcome.per_second()),
    },
    Plot {
        file: "ring-size-p99.svg",
        title: "Durable commits, 99th percentile of latency: 64 tasks, by size of the ring",
        x: "bytes of the ring",
        y: "µs",
        works: "ring/",
        of: |outcome| outcome.latency.map(|latency| latency.p99),
    },
    Plot {
        file: "log-size.svg",
        title: "Durable commits per second: 64 tasks, by what the log holds already",
        x: "bytes in the log",
        y: "commits per second",
        works: "log/",
        of: |outcome| Some(outcome.per_second()),
    },
    Plot {
        file: "log-size-p99.svg",
        title: "Durable commits, 99th percentile of latency: 64 tasks, by what the log holds already",
        x: "bytes in the log",
        y: "µs",
        works: "log/",
        of: |outcome| outcome.latency.map(|latency| latency.p99),
    },
];

pub fn draw(plan: &Plan, results: &Results, out: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut files = Vec::new();
    for plot in PLOTS {
        let lines: Vec<Line> = plan
            .contenders
            .iter()
            .enumerate()
            .map(|(index, contender)| (index, *contender, points(plan, results, contender, plot)))
            .filter(|(_, _, points)| !points.is_empty())
            .collect();
        let points = lines.iter().map(|line| line.2.len()).max().unwrap_or(0);
        if points >= 2 {
            chart(plot, &lines, &out.join(plot.file))?;
            files.push(plot.file.to_owned());
        }
    }
    Ok(files)
}

fn points(plan: &Plan, results: &Results, contender: &Contender, plot: &Plot) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = plan
        .works
        .iter()
        .filter_map(|work| {
            let x: f64 = work.name.strip_prefix(plot.works)?.parse().ok()?;
            let row = results.row(&work.name, contender.name)?;
            let values: Vec<f64> = row.outcomes.iter().flatten().filter_map(plot.of).collect();
            let (_, median, _) = crate::table::spread(&values)?;
            (median > 0.0).then_some((x, median))
        })
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

fn chart(plot: &Plot, lines: &[Line], file: &Path) -> Result<(), Box<dyn Error>> {
    let all = || lines.iter().flat_map(|line| &line.2);
    let fold = |start: f64, of: fn(f64, f64) -> f64, pick: fn(&(f64, f64)) -> f64| {
        all().map(pick).fold(start, of)
    };
    let x = fold(f64::MAX, f64::min, |p| p.0)..fold(0.0, f64::max, |p| p.0) * 1.1;
    let y = decades(fold(f64::MAX, f64::min, |p| p.1) * 0.7, fold(0.0, f64::max, |p| p.1) * 1.5);
    let root = SVGBackend::new(file, (900, 560)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(plot.title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(84)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    chart
        .configure_mesh()
        .x_desc(plot.x)
        .y_desc(plot.y)
        .x_label_formatter(&|x| short(*x))
        .y_label_formatter(&|y| short(*y))
        .light_line_style(RGBColor(240, 240, 240))
        .draw()?;
    for (index, contender, points) in lines {
        // The index sets the colour, so that a contender has the same colour in every plot.
        let hue = *index as f64 * 0.381_966 % 1.0;
        let other = HSLColor(hue, 0.6, 0.42).to_rgba();
        let colour = match (contender.is_highwater(), index) {
            (true, 0) => RED.to_rgba(),
            (true, 1) => RGBColor(255, 150, 0).to_rgba(),
            (true, _) => RGBColor(200, 60, 160).to_rgba(),
            _ => other,
        };
        let style = ShapeStyle::from(colour)
            .stroke_width(if contender.is_highwater() { 3 } else { 1 })
            .filled();
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style).point_size(3))?
            .label(contender.name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(RGBColor(200, 200, 200))
        .draw()?;
    root.present()?;
    Ok(())
}

/// Widens a range to powers of ten if it contains none, because the axis would have no label.
fn decades(low: f64, high: f64) -> std::ops::Range<f64> {
    match low.log10().ceil() < high.log10().floor() {
        true => low..high,
        false => 10f64.powf(low.log10().floor())..10f64.powf(high.log10().ceil()),
    }
}

fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.0} M", value / 1e6),
        value if value >= 1e4 => format!("{:.0} k", value / 1e3),
        value if value >= 1.0 => format!("{value:.0}"),
        value => format!("{value:.2}"),
    }
}
