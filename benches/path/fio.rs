//! The same disk operations without a daemon: what fio's engines do on the same file.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::kernel::{Load, Way};
use crate::processor;

/// A plain engine, how it is called in the table, and whether it is to have as many operations in flight as the load.
pub(crate) struct Engine {
    pub(crate) name: &'static str,
    engine: &'static str,
    pub(crate) is_deep: bool,
}

pub(crate) const ENGINES: [Engine; 3] = [
    Engine {
        name: "fio, psync",
        engine: "psync",
        is_deep: false,
    },
    Engine {
        name: "fio, io_uring, one at a time",
        engine: "io_uring",
        is_deep: false,
    },
    Engine {
        name: "fio, io_uring, as deep",
        engine: "io_uring",
        is_deep: true,
    },
];

/// fio on a file.
pub(crate) struct Fio<'a> {
    path: &'a Path,
    load: Load,
    /// Past the page cache.
    direct: bool,
    /// What it uses of the processor before and after its operations.
    start: Duration,
}

impl Fio<'_> {
    /// `None` if there is no fio.
    pub(crate) fn new(path: &Path, load: Load, direct: bool) -> Option<Fio<'_>> {
        let mut fio = Fio {
            path,
            load,
            direct,
            start: Duration::ZERO,
        };
        let one = format!("--io_size={}", load.length);
        let starts = (0..3).map(|_| fio.run(&ENGINES[0], &one).map(|(_, used)| used));
        fio.start = starts.collect::<Option<Vec<_>>>()?.into_iter().min()?;
        Some(fio)
    }

    /// Operations for each second of the processor's.
    pub(crate) fn rate(&self, engine: &Engine, seconds: f64) -> Option<f64> {
        let milliseconds = Duration::from_secs_f64(seconds).as_millis();
        let runtime = format!("--runtime={milliseconds}ms");
        let (operations, used) = self.run(engine, &runtime)?;
        Some(operations / used.saturating_sub(self.start).as_secs_f64())
    }

    /// The number of operations, and what was used of the processor.
    fn run(&self, engine: &Engine, limit: &str) -> Option<(f64, Duration)> {
        let (pattern, results) = match self.load.way {
            Way::Read => ("randread", "read"),
            Way::Write => ("randwrite", "write"),
        };
        let depth = if engine.is_deep { self.load.depth } else { 1 };
        let before = processor::used_by_children();
        let output = Command::new("fio")
            .args(["--name=path", "--thread", "--output-format=json"])
            .args(["--invalidate=0", "--overwrite=1", "--fallocate=none"])
            .args(["--norandommap", "--gtod_reduce=1"])
            .arg(format!("--direct={}", u8::from(self.direct)))
            .arg(format!("--filename={}", self.path.display()))
            .arg(format!("--size={}", self.load.within))
            .arg(format!("--rw={pattern}"))
            .arg(format!("--bs={}", self.load.length))
            .arg(format!("--ioengine={}", engine.engine))
            .arg(format!("--iodepth={depth}"))
            .args(limit.contains("runtime").then_some("--time_based"))
            .arg(limit)
            .output()
            .ok()?;
        let used = processor::used_by_children() - before;
        let text = String::from_utf8(output.stdout).unwrap();
        let told = text.find('{').map(|begin| &text[begin..]);
        let told: Value = serde_json::from_str(told?).ok()?;
        let operations = told["jobs"][0][results]["total_ios"].as_f64()?;
        Some((operations, used))
    }
}
