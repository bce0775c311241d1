use std::collections::BTreeSet;

use super::*;
use crate::control::tests::example;

/// The lines of a metric.
fn lines(text: &str, name: &str) -> Vec<String> {
    let rest = |line: &str| {
        line.strip_prefix(name)
            .map(|rest| rest.starts_with(['{', ' ']))
    };
    let lines = text.lines().filter(|line| rest(line) == Some(true));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_exposition_says_what_the_status_says() {
    let text = exposition(&example()).unwrap();
    let unit = "{unit=\"/srv/lun0.img\"}";
    let expected = [
        "# TYPE tcmu_pr_build_info gauge",
        "tcmu_pr_build_info{version=\"0.1.0\"} 1",
        "tcmu_pr_start_time_seconds 1800000000",
        "tcmu_pr_tap_attached 1",
        "tcmu_pr_refused_backstores 1",
        "tcmu_pr_warnings 0",
        "tcmu_pr_unit_info{unit=\"/srv/lun0.img\",serial=\"6001405a\",engine=\"io_uring\"} 1",
        &format!("tcmu_pr_unit_up{unit} 1"),
        &format!("tcmu_pr_unit_size_bytes{unit} 10737418240"),
        "tcmu_pr_unit_ports{unit=\"/srv/lun0.img\",state=\"shared\"} 0",
        "tcmu_pr_unit_ports{unit=\"/srv/lun0.img\",state=\"serving\"} 2",
        "tcmu_pr_unit_ports{unit=\"/srv/lun0.img\",state=\"waiting\"} 1",
        "# HELP tcmu_pr_unit_commands_total Commands answered, by kind: read, write, flush, other.",
        "# TYPE tcmu_pr_unit_commands_total counter",
        "tcmu_pr_unit_commands_total{unit=\"/srv/lun0.img\",kind=\"read\"} 1000",
        "tcmu_pr_unit_commands_total{unit=\"/srv/lun0.img\",kind=\"write\"} 200",
        "tcmu_pr_unit_commands_total{unit=\"/srv/lun0.img\",kind=\"flush\"} 0",
        "tcmu_pr_unit_commands_total{unit=\"/srv/lun0.img\",kind=\"other\"} 34",
        "tcmu_pr_unit_bytes_total{unit=\"/srv/lun0.img\",kind=\"read\"} 4096000",
        "tcmu_pr_unit_bytes_total{unit=\"/srv/lun0.img\",kind=\"write\"} 819200",
        "# TYPE tcmu_pr_unit_command_duration_seconds histogram",
        "tcmu_pr_unit_command_duration_seconds_bucket{unit=\"/srv/lun0.img\",kind=\"read\",le=\"0.00001\"} 900",
        "tcmu_pr_unit_command_duration_seconds_bucket{unit=\"/srv/lun0.img\",kind=\"read\",le=\"0.000025\"} 990",
        "tcmu_pr_unit_command_duration_seconds_bucket{unit=\"/srv/lun0.img\",kind=\"read\",le=\"+Inf\"} 1000",
        "tcmu_pr_unit_command_duration_seconds_sum{unit=\"/srv/lun0.img\",kind=\"read\"} 0.02",
        "tcmu_pr_unit_command_duration_seconds_count{unit=\"/srv/lun0.img\",kind=\"read\"} 1000",
        "tcmu_pr_unit_command_duration_seconds_sum{unit=\"/srv/lun0.img\",kind=\"write\"} 5.5",
        &format!("tcmu_pr_unit_queue_depth{unit} 32"),
        &format!("tcmu_pr_unit_in_flight{unit} 32"),
        &format!("tcmu_pr_unit_waiting_answers{unit} 0"),
        &format!("tcmu_pr_unit_oldest_command_seconds{unit} 1.5"),
        &format!("tcmu_pr_unit_slow_commands_total{unit} 2"),
        &format!("tcmu_pr_unit_conflicts_total{unit} 4"),
        &format!("tcmu_pr_unit_busy_total{unit} 5"),
        &format!("tcmu_pr_unit_unknown_nexus_total{unit} 1"),
        &format!("tcmu_pr_unit_sessions{unit} 0"),
        &format!("tcmu_pr_unit_registrants{unit} 1"),
        &format!("tcmu_pr_unit_pr_generation{unit} 3"),
        "tcmu_pr_unit_reservation_info{unit=\"/srv/lun0.img\",type=\"Write Exclusive, Registrants Only\",\
         holder=\"iqn.2026-11.example:a -> iqn.2026-11.example:t,t,0x0001\"} 1",
        &format!("tcmu_pr_unit_reserved{unit} 1"),
        &format!("tcmu_pr_unit_record_unreadable{unit} 0"),
        &format!("tcmu_pr_unit_flush_failed{unit} 0"),
    ];
    let told: Vec<&str> = text.lines().collect();
    let mut rest = told.iter();
    for expected in expected {
        let found = rest.any(|line| *line == expected);
        assert!(found, "{expected} is not there, or too early:\n{text}");
    }
}

#[test]
fn what_is_wrong_is_1() {
    let mut status = example();
    status.warnings = vec!["the configuration is wrong: mend it".into()];
    status.tap = TapStatus::default();
    let unit = &mut status.units[0];
    unit.flush_failed = true;
    unit.waiting.answers = 1;
    unit.reservations.unreadable = Some("torn".into());
    unit.reservations.reservation = None;
    let text = exposition(&status).unwrap();
    for (name, expected) in [
        ("tcmu_pr_tap_attached", " 0"),
        ("tcmu_pr_warnings", " 1"),
        ("tcmu_pr_unit_waiting_answers", "{unit=\"/srv/lun0.img\"} 1"),
        ("tcmu_pr_unit_flush_failed", "{unit=\"/srv/lun0.img\"} 1"),
        (
            "tcmu_pr_unit_record_unreadable",
            "{unit=\"/srv/lun0.img\"} 1",
        ),
        ("tcmu_pr_unit_reserved", "{unit=\"/srv/lun0.img\"} 0"),
    ] {
        assert_eq!(lines(&text, name), [format!("{name}{expected}")]);
    }
    let none: [String; 0] = [];
    assert_eq!(lines(&text, "tcmu_pr_unit_reservation_info"), none);
}

#[test]
fn what_is_not_known_is_left_out() {
    let mut status = example();
    status.units[0].performance = None;
    let text = exposition(&status).unwrap();
    let up = "tcmu_pr_unit_up";
    assert_eq!(
        lines(&text, up),
        ["tcmu_pr_unit_up{unit=\"/srv/lun0.img\"} 0"]
    );
    for name in [
        "conflicts_total",
        "commands_total",
        "registrants",
        "flush_failed",
    ] {
        assert!(!text.contains(&format!("tcmu_pr_unit_{name}")), "{name}");
    }
}

#[test]
fn labels_are_escaped() {
    let mut status = example();
    status.units[0].path = "/srv/a\"b\\c\nd".into();
    let text = exposition(&status).unwrap();
    assert_eq!(
        lines(&text, "tcmu_pr_unit_up"),
        [r#"tcmu_pr_unit_up{unit="/srv/a\"b\\c\nd"} 1"#]
    );
}

#[test]
fn names_follow_the_conventions() {
    let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), METRICS.len());
    for metric in METRICS {
        let name = metric.name;
        assert!(name.starts_with("tcmu_pr_"), "{name}");
        let is_counter = metric.kind == MetricType::COUNTER;
        assert_eq!(name.ends_with("_total"), is_counter, "{name}");
        assert!(metric.help.ends_with('.'), "{name}");
        for sample in (metric.samples)(&example()) {
            assert_eq!(sample.labels.len(), metric.labels.len(), "{name}");
        }
    }
}

/// A file of the documentation.
fn document(name: &str) -> String {
    let path = format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_documentation_lists_all_metrics() {
    let table = markdown();
    assert!(
        document("monitoring.md").contains(&table),
        "docs/monitoring.md has another table than this:\n{table}"
    );
}

/// All words of ours in an expression.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("tcmu_pr_"))
}

fn expressions(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (key, value) in object {
                match value {
                    serde_json::Value::String(text) if key == "expr" || key == "query" => {
                        found.push(text.clone());
                    }
                    value => expressions(value, found),
                }
            }
        }
        serde_json::Value::Array(list) => {
            list.iter().for_each(|value| expressions(value, found));
        }
        _ => {}
    }
}

#[test]
fn the_dashboard_shows_metrics_that_there_are() {
    let dashboard: serde_json::Value = serde_json::from_str(&document("grafana.json")).unwrap();
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    assert!(found.len() > 10, "{found:?}");
    let text = exposition(&example()).unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let there: BTreeSet<&str> = samples
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    for expression in &found {
        for name in names(expression) {
            assert!(there.contains(name), "{name} in {expression}");
        }
    }
    for needed in [
        "tap_attached",
        "warnings",
        "unit_up",
        "unit_conflicts_total",
        "unit_busy_total",
        "unit_queue_depth",
        "unit_waiting_answers",
        "unit_reservation_info",
    ] {
        let name = format!("tcmu_pr_{needed}");
        assert!(found.iter().any(|text| text.contains(&name)), "{name}");
    }
}

#[test]
fn the_dashboard_keeps_nodes_apart() {
    let dashboard: serde_json::Value = serde_json::from_str(&document("grafana.json")).unwrap();
    let targets = dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    for target in targets {
        let expression = target["expr"].as_str().unwrap();
        let after = expression.split("tcmu_pr_").skip(1);
        for rest in after {
            let selector = rest.trim_start_matches(|c: char| c.is_ascii_lowercase() || c == '_');
            assert!(
                selector.starts_with("{instance=~\"$instance\""),
                "{expression}"
            );
        }
        let sums = expression.matches("sum by (").count();
        let apart = expression.matches("sum by (instance, ").count();
        assert_eq!(sums, apart, "{expression}");
        let legend = target["legendFormat"].as_str().unwrap();
        // A table has a column for each label.
        let is_told = legend.contains("{{instance}}") || target["format"] == "table";
        assert!(is_told, "{expression}: {legend}");
    }
}

#[test]
fn the_alerts_in_the_documentation_are_about_metrics_that_there_are() {
    let monitoring = document("monitoring.md");
    let (_, alerts) = monitoring.split_once("\n### Alerts\n").unwrap();
    for needed in [
        "tcmu_pr_unit_up == 0",
        "tcmu_pr_unit_ports{state=\"waiting\"} > 0",
        "tcmu_pr_warnings > 0",
        "tcmu_pr_unit_waiting_answers > 0",
    ] {
        assert!(alerts.contains(needed), "{needed}");
    }
    let text = exposition(&example()).unwrap();
    for name in names(&monitoring) {
        let is_there = text.lines().any(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        let is_listed = METRICS.iter().any(|metric| metric.name == name);
        assert!(is_there || is_listed, "{name}");
    }
}
