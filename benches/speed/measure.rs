//! Numbers: percentiles, the disk, and what a process used.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Outcome;

/// Measurements of one kind, sorted; durations are in milliseconds.
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value that `percent` of the samples do not exceed (nearest rank).
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or(f64::NAN)
    }
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// A count as a number to reckon with; the counts here are far below 2^52.
pub(crate) fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// What making a small write durable costs on the disk of the ledger.
pub(crate) struct Disk {
    pub(crate) fdatasync: Samples,
}

impl Disk {
    /// Appends 4 KiB and waits for the disk, as a commit does.
    pub(crate) fn measure(dir: &Path, times: usize) -> Outcome<Self> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join("fdatasync");
        let mut file = File::create(&path)?;
        let mut samples = Vec::with_capacity(times);
        for _ in 0..times {
            file.write_all(&[7; 4096])?;
            let start = Instant::now();
            file.sync_data()?;
            samples.push(milliseconds(start.elapsed()));
        }
        std::fs::remove_file(path)?;
        Ok(Self { fdatasync: Samples::new(samples) })
    }
}

/// Processor time in seconds and peak memory in MiB of a process, from `/proc`.
pub(crate) fn used(pid: u32) -> (f64, f64) {
    /// Linux reports processor time in hundredths of a second.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in brackets, may hold spaces; user and system time are fields 14 and 15.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    let ticks: f64 = fields.filter_map(|field| field.parse::<f64>().ok()).sum();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak_kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<f64>().ok())
        .unwrap_or_default();
    (ticks / TICKS_PER_SECOND, peak_kib / 1024.0)
}
