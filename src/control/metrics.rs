//! What Prometheus is told: what is worth watching of the [`Status`], by names that stay.
//!
//! `METRICS` is the one list of them. The documentation has it as a table ([`markdown`]), and tests hold the dashboard and
//! the documentation to it.

mod http;

use std::fmt::Write as _;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, MetricFamily, MetricType};
use prometheus::{TEXT_FORMAT, TextEncoder};

use super::performance::{PerformanceStatus, TotalStatus};
use super::{LinkStatus, Status, TapStatus, UnitStatus};
pub use http::serve;

/// A metric, and where its samples come from.
struct Metric {
    name: &'static str,
    kind: MetricType,
    /// Its labels, in order.
    labels: &'static [&'static str],
    help: &'static str,
    samples: fn(&Status) -> Vec<Sample>,
}

/// One value of a metric.
struct Sample {
    /// The values of the labels, in their order.
    labels: Vec<String>,
    value: Value,
}

enum Value {
    Number(f64),
    /// Latencies.
    Distribution(TotalStatus),
}

/// All metrics.
const METRICS: &[Metric] = &[
    Metric {
        name: "tcmu_pr_build_info",
        kind: MetricType::GAUGE,
        labels: &["version"],
        help: "1, with the version of the daemon.",
        samples: |status| vec![sample([status.version.clone()], 1_u64)],
    },
    Metric {
        name: "tcmu_pr_start_time_seconds",
        kind: MetricType::GAUGE,
        labels: &[],
        help: "When the daemon was started, in seconds since 1970.",
        samples: |status| vec![sample([], status.started_unix_s)],
    },
    Metric {
        name: "tcmu_pr_tap_attached",
        kind: MetricType::GAUGE,
        labels: &[],
        help: "Whether initiators that share a backstore can be told apart: 1 if so, else 0.",
        samples: |status| vec![sample([], status.tap == TapStatus::Attached)],
    },
    Metric {
        name: "tcmu_pr_refused_backstores",
        kind: MetricType::GAUGE,
        labels: &[],
        help: "Backstores that are not served, because they were refused or have failed.",
        samples: |status| vec![sample([], status.refused.len() as u64)],
    },
    Metric {
        name: "tcmu_pr_warnings",
        kind: MetricType::GAUGE,
        labels: &[],
        help: "What is wrong with the node as a whole, as `tcmu-pr status` says at its end: how many sentences.",
        samples: |status| vec![sample([], status.warnings.len() as u64)],
    },
    Metric {
        name: "tcmu_pr_unit_info",
        kind: MetricType::GAUGE,
        labels: &["unit", "serial", "engine"],
        help: "1, with the unit's serial number, and what does its I/O.",
        samples: |status| {
            let units = status.units.iter();
            let info = |unit: &UnitStatus| {
                let engine = unit.engine.split(' ').next().unwrap_or_default();
                sample(
                    [unit.path.clone(), unit.serial.clone(), engine.to_owned()],
                    1_u64,
                )
            };
            units.map(info).collect()
        },
    },
    Metric {
        name: "tcmu_pr_unit_up",
        kind: MetricType::GAUGE,
        labels: &["unit"],
        help: "Whether the unit's thread answers: 1 if so, else 0, and then most of its metrics are left out.",
        samples: |status| {
            let units = status.units.iter();
            units
                .map(|unit| sample([unit.path.clone()], unit.performance.is_some()))
                .collect()
        },
    },
    Metric {
        name: "tcmu_pr_unit_size_bytes",
        kind: MetricType::GAUGE,
        labels: &["unit"],
        help: "The unit's capacity.",
        samples: |status| {
            let units = status.units.iter();
            units
                .map(|unit| sample([unit.path.clone()], unit.size_bytes))
                .collect()
        },
    },
    Metric {
        name: "tcmu_pr_unit_ports",
        kind: MetricType::GAUGE,
        labels: &["unit", "state"],
        help: "The unit's backstores by state: shared (serves all initiators), serving (serves one), waiting (answers BUSY).",
        samples: ports,
    },
    Metric {
        name: "tcmu_pr_unit_commands_total",
        kind: MetricType::COUNTER,
        labels: &["unit", "kind"],
        help: "Commands answered, by kind: read, write, flush, other.",
        samples: |status| of_kinds(status, |total| Some(number(total.commands))),
    },
    Metric {
        name: "tcmu_pr_unit_bytes_total",
        kind: MetricType::COUNTER,
        labels: &["unit", "kind"],
        help: "Bytes that reads and writes have moved, by kind: read, write.",
        samples: bytes,
    },
    Metric {
        name: "tcmu_pr_unit_command_duration_seconds",
        kind: MetricType::HISTOGRAM,
        labels: &["unit", "kind"],
        help: "From when a command is taken from the kernel until its answer is there, by kind. Answers BUSY and RESERVATION \
               CONFLICT are left out.",
        samples: |status| of_kinds(status, |total| Some(Value::Distribution(total.clone()))),
    },
    Metric {
        name: "tcmu_pr_unit_queue_depth",
        kind: MetricType::GAUGE,
        labels: &["unit"],
        help: "Commands taken from the kernel and not answered.",
        samples: |status| of_units(status, |_, performance| number(performance.queue_depth)),
    },
    Metric {
        name: "tcmu_pr_unit_in_flight",
        kind: MetricType::GAUGE,
        labels: &["unit"],
        help: "Commands whose data is on its way from or to the backing object.",
        samples: |status| of_units(status, |unit, _| number(unit.in_flight)),
    },
    Metric {
        name: "tcmu_pr_unit_waiting_answers",
        kind: MetricType::GAUGE,
        labels: &["unit"],
        help: "Answers to those who have shut others out, which wait until what these have in flight has ended.",
        samples: |status| of_units(status, |unit, _| number(unit.waiting.answers)),
    },
    Metric {
        name: "tcmu_pr_unit_oldest_command_seconds",
        kind: MetricType::GAUGE,
        labels: &["unit"],
        help: "How long ago the oldest command was taken that is not answered; 0 if there is none.",
        samples: |status| {
            of_units(status, |_, performance| {
                Value::Number(performance.oldest_command_ms as f64 / 1e3)
            })
        },
    },
    Metric {
        name: "tcmu_pr_unit_slow_commands_total",
        kind: MetricType::COUNTER,
        labels: &["unit"],
        help: "Commands that took longer than 10 seconds.",
        samples: |status| of_units(status, |_, performance| number(performance.slow_commands)),
    },
    Metric {
        name: "tcmu_pr_unit_conflicts_total",
        kind: MetricType::COUNTER,
        labels: &["unit"],
        help: "Commands answered with RESERVATION CONFLICT.",
        samples: |status| of_units(status, |unit, _| number(unit.counters.conflicts)),
    },
    Metric {
        name: "tcmu_pr_unit_busy_total",
        kind: MetricType::COUNTER,
        labels: &["unit"],
        help: "Commands answered with BUSY.",
        samples: |status| of_units(status, |_, performance| number(performance.busy)),
    },
    Metric {
        name: "tcmu_pr_unit_unknown_nexus_total",
        kind: MetricType::COUNTER,
        labels: &["unit"],
        help: "Commands answered with BUSY because their I_T nexus was not known.",
        samples: |status| of_units(status, |unit, _| number(unit.counters.unknown_nexus)),
    },
    Metric {
        name: "tcmu_pr_unit_sessions",
        kind: MetricType::GAUGE,
        labels: &["unit"],
        help: "I_T nexuses that are logged in and have sent commands through shared backstores.",
        samples: |status| of_units(status, |unit, _| number(unit.sessions.len() as u64)),
    },
    Metric {
        name: "tcmu_pr_unit_registrants",
        kind: MetricType::GAUGE,
        labels: &["unit"],
        help: "Registered I_T nexuses.",
        samples: |status| {
            of_units(status, |unit, _| {
                number(unit.reservations.registrants.len() as u64)
            })
        },
    },
    Metric {
        name: "tcmu_pr_unit_pr_generation",
        kind: MetricType::GAUGE,
        labels: &["unit"],
        help: "PRGENERATION: it grows with every change of the registrations.",
        samples: |status| {
            of_units(status, |unit, _| {
                number(unit.reservations.generation.into())
            })
        },
    },
    Metric {
        name: "tcmu_pr_unit_reservation_info",
        kind: MetricType::GAUGE,
        labels: &["unit", "type", "holder"],
        help: "1, with the type of the reservation and who holds it; there is none without a reservation.",
        samples: reservations,
    },
    Metric {
        name: "tcmu_pr_unit_reserved",
        kind: MetricType::GAUGE,
        labels: &["unit"],
        help: "Whether there is a reservation: 1 if so, else 0.",
        samples: |status| of_units(status, |unit, _| flag(held(unit).is_some())),
    },
    Metric {
        name: "tcmu_pr_unit_record_unreadable",
        kind: MetricType::GAUGE,
        labels: &["unit"],
        help: "Whether the record of the reservations can't be read, so that nobody is let in: 1 if so, else 0.",
        samples: |status| {
            of_units(status, |unit, _| {
                flag(unit.reservations.unreadable.is_some())
            })
        },
    },
    Metric {
        name: "tcmu_pr_unit_flush_failed",
        kind: MetricType::GAUGE,
        labels: &["unit"],
        help: "Whether writes are refused since a flush has failed: 1 if so, else 0.",
        samples: |status| of_units(status, |unit, _| flag(unit.flush_failed)),
    },
];

#[allow(
    clippy::cast_precision_loss,
    reason = "it is a gauge or counter of Prometheus"
)]
fn number(number: u64) -> Value {
    Value::Number(number as f64)
}

fn flag(flag: bool) -> Value {
    number(flag.into())
}

fn sample<const N: usize>(labels: [String; N], value: impl Into<u64>) -> Sample {
    Sample {
        labels: labels.into(),
        value: number(value.into()),
    }
}

/// One sample for each unit whose thread has answered.
fn of_units(
    status: &Status,
    value: impl Fn(&UnitStatus, &PerformanceStatus) -> Value,
) -> Vec<Sample> {
    let units = status.units.iter();
    units
        .filter_map(|unit| {
            Some(Sample {
                labels: vec![unit.path.clone()],
                value: value(unit, unit.performance.as_ref()?),
            })
        })
        .collect()
}

/// One sample for each unit and kind of commands, if it has one.
fn of_kinds(status: &Status, value: impl Fn(&TotalStatus) -> Option<Value>) -> Vec<Sample> {
    let mut samples = Vec::new();
    for unit in &status.units {
        let Some(performance) = &unit.performance else {
            continue;
        };
        let totals = &performance.totals;
        for (kind, total) in [
            ("read", &totals.reads),
            ("write", &totals.writes),
            ("flush", &totals.flushes),
            ("other", &totals.others),
        ] {
            samples.extend(value(total).map(|value| Sample {
                labels: vec![unit.path.clone(), kind.to_owned()],
                value,
            }));
        }
    }
    samples
}

fn bytes(status: &Status) -> Vec<Sample> {
    let mut samples = of_kinds(status, |total| Some(number(total.bytes)));
    samples.retain(|sample| sample.labels[1] == "read" || sample.labels[1] == "write");
    samples
}

fn ports(status: &Status) -> Vec<Sample> {
    let mut samples = Vec::new();
    for unit in &status.units {
        for state in ["shared", "serving", "waiting"] {
            let ports = unit.ports.iter().filter(|port| {
                state
                    == match port.link {
                        LinkStatus::Shared { .. } => "shared",
                        LinkStatus::Serving { .. } => "serving",
                        LinkStatus::Waiting { .. } => "waiting",
                    }
            });
            let labels = [unit.path.clone(), state.to_owned()];
            samples.push(sample(labels, ports.count() as u64));
        }
    }
    samples
}

/// The type of the reservation, and who holds it.
fn held(unit: &UnitStatus) -> Option<(&str, &str)> {
    let reservations = &unit.reservations;
    match (&reservations.reservation, &reservations.reserve) {
        (Some(held), _) => {
            let holder = held.holder.as_deref().unwrap_or("all registrants");
            Some((&held.kind, holder))
        }
        (None, Some(holder)) => Some(("RESERVE", holder)),
        (None, None) => None,
    }
}

fn reservations(status: &Status) -> Vec<Sample> {
    let units = status.units.iter();
    units
        .filter_map(|unit| {
            let (kind, holder) = held(unit)?;
            let labels = [unit.path.clone(), kind.to_owned(), holder.to_owned()];
            Some(sample(labels, 1_u64))
        })
        .collect()
}

/// The status in Prometheus' text format.
fn exposition(status: &Status) -> Result<String, prometheus::Error> {
    let families = METRICS.iter().map(|metric| family(metric, status));
    // A family without samples is an error to the encoder.
    let families: Vec<MetricFamily> = families
        .filter(|family| !family.get_metric().is_empty())
        .collect();
    TextEncoder::new().encode_to_string(&families)
}

fn family(metric: &Metric, status: &Status) -> MetricFamily {
    let samples = (metric.samples)(status).into_iter();
    let mut family = MetricFamily::default();
    family.set_name(metric.name.to_owned());
    family.set_help(metric.help.to_owned());
    family.set_field_type(metric.kind);
    family.set_metric(samples.map(|sample| encodable(metric, sample)).collect());
    family
}

fn encodable(metric: &Metric, sample: Sample) -> prometheus::proto::Metric {
    let labels = metric.labels.iter().zip(sample.labels);
    let labels = labels.map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value(value);
        label
    });
    let mut encodable = prometheus::proto::Metric::from_label(labels.collect());
    match sample.value {
        Value::Distribution(total) => encodable.set_histogram(histogram(&total)),
        Value::Number(number) if metric.kind == MetricType::COUNTER => {
            let mut counter = Counter::default();
            counter.set_value(number);
            encodable.set_counter(counter);
        }
        Value::Number(number) => {
            let mut gauge = Gauge::default();
            gauge.set_value(number);
            encodable.set_gauge(gauge);
        }
    }
    encodable
}

fn histogram(total: &TotalStatus) -> Histogram {
    let buckets = total.latency_buckets.iter().map(|bucket| {
        let mut encodable = Bucket::default();
        encodable.set_upper_bound(seconds(bucket.up_to_us));
        encodable.set_cumulative_count(bucket.commands);
        encodable
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(total.latency_count);
    histogram.set_sample_sum(seconds(total.latency_sum_us));
    histogram
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has it no other way")]
fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}

/// The table of all metrics, for the documentation.
pub fn markdown() -> String {
    let mut table = String::from("| metric | type | labels | what |\n|---|---|---|---|\n");
    for metric in METRICS {
        let labels: Vec<String> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let _ = writeln!(
            table,
            "| `{}` | {kind} | {} | {} |",
            metric.name,
            labels.join(", "),
            metric.help
        );
    }
    table
}

#[cfg(test)]
mod tests;
