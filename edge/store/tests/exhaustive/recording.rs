//! A recorded run with every moment of it, and what a cut or a fault at one of them leaves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sonae_journal::JournalError;
use sonae_journal::sim::{Cut, Fault, Operation, SimDisk};
use sonae_store::StoreError;
use sonae_store::options::Options;

use crate::judge::{Expected, Files, files, judge};
use crate::rig::{Claims, Run, Stop, essence};
use crate::workload::{Step, by_hand, generated};
use crate::world::scratch;

pub const CUTS: [Cut; 4] = [Cut::Drop, Cut::Keep, Cut::Prefix, Cut::Torn];
pub const FAULTS: [Fault; 2] = [Fault::Io, Fault::NoSpace];
/// Workloads by seed, besides those by hand.
const SEEDS: u64 = 36;
const STEPS: usize = 16;

/// A moment before an operation.
pub struct Point {
    pub operation: Operation,
    pub place: &'static str,
    pub disk: SimDisk,
    pub step: usize,
    is_kept: bool,
    pub claims: Claims,
    pub view: Arc<Files>,
    view_before: Arc<Files>,
}

/// A run without faults, with every moment of it.
pub struct Recording {
    pub name: String,
    pub seed: u64,
    pub steps: Vec<Step>,
    pub points: Vec<Point>,
    /// The essence at the beginning and after each step.
    pub essences: Vec<String>,
    pub bytes: BTreeMap<(sonae_proto::ids::LogName, u64), Vec<u8>>,
}

pub fn workloads() -> Vec<(String, u64, Vec<Step>)> {
    let hand = by_hand().into_iter().zip(1000..).map(|((name, steps), seed)| (name.to_owned(), seed, steps));
    let seeds = (1..=SEEDS).map(|seed| (format!("seed {seed}"), seed, generated(seed, STEPS)));
    hand.chain(seeds).collect()
}

pub fn record(name: &str, seed: u64, steps: &[Step], options: &Options) -> Result<Recording, String> {
    let (dir, disk) = (scratch(), SimDisk::new(seed));
    let view = dir.path().join("view");
    let mut run = Run::new(&disk, &view, options);
    let points: Arc<Mutex<Vec<Point>>> = Arc::default();
    let (flight, noted, watched) = (Arc::clone(&run.flight), Arc::clone(&points), view.clone());
    disk.watch(move |operation, path, disk| {
        let mut flight = flight.lock().unwrap();
        flight.look();
        let mut points = noted.lock().unwrap();
        let found = files(&watched);
        let last =
            points.last().map(|point: &Point| (Arc::clone(&point.view), Arc::clone(&point.view_before)));
        let (view, view_before) = match last {
            Some((view, before)) if *view == found => (view, before),
            Some((view, _)) => (Arc::new(found), view),
            None => (Arc::new(found), Arc::default()),
        };
        points.push(Point {
            operation,
            place: if path.starts_with("/batches") { "archive" } else { "journal" },
            disk,
            step: flight.step,
            is_kept: flight.is_kept,
            claims: flight.claims.clone(),
            view,
            view_before,
        });
    });
    let wrong = |stop: Stop| format!("{name} without a fault: {stop:?}");
    let stepped = run.open().map_err(wrong)?;
    run.essences.push(essence(&stepped));
    drop(run.steps(stepped, steps, 0).map_err(wrong)?);
    disk.unwatch();
    let points = std::mem::take(&mut *points.lock().unwrap());
    Ok(Recording {
        name: name.to_owned(),
        seed,
        steps: steps.to_vec(),
        points,
        essences: run.essences,
        bytes: run.bytes,
    })
}

/// Cuts the power at a point in one way and judges what is left.
pub fn cut(recording: &Recording, number: usize, cut: Cut, options: &Options) -> Result<(), String> {
    cut_salted(recording, number, cut, 0, options)
}

/// The same with a salt for what is random in it.
pub fn cut_salted(
    recording: &Recording,
    number: usize,
    cut: Cut,
    salt: u64,
    options: &Options,
) -> Result<(), String> {
    let point = &recording.points[number];
    let disk = point.disk.fork();
    disk.reseed(recording.seed ^ ((number as u64) << 20) ^ ((cut as u64) << 50) ^ (salt << 54));
    disk.power_cycle(cut);
    let view = match (number + cut as usize) % 3 {
        0 => None,
        1 => Some(point.view.as_ref()),
        _ => Some(point.view_before.as_ref()),
    };
    let mut essences = vec![recording.essences[point.step + 1].as_str()];
    if !point.is_kept {
        essences.push(&recording.essences[point.step]);
    }
    let wanted = Expected { essences, claims: &point.claims, bytes: &recording.bytes };
    judge(&disk, view, options, &wanted).map_err(|what| {
        let (name, place, operation, step) = (&recording.name, point.place, point.operation, point.step);
        format!("{name}: {cut:?} before {number} ({place} {operation:?}, step {step}): {what}")
    })
}

/// Opens again after an error; the fault that was asked for has been used up, so it must work.
fn reopened(run: &mut Run<'_>, stop: Stop) -> Result<sonae_store::testing::Stepped, String> {
    match stop {
        Stop::Wrong(what) => return Err(what),
        Stop::Open(StoreError::Journal(error)) if error.is_corrupt() => {
            return Err(format!("false rot: {error}"));
        }
        Stop::Open(StoreError::Journal(JournalError::Io { .. } | JournalError::Full { .. })) => {}
        Stop::Open(StoreError::Batches { .. }) | Stop::Failed => {}
        Stop::Open(error) => return Err(format!("the fault is told as: {error:?}")),
    }
    run.open().map_err(|stop| format!("opened again: {stop:?}"))
}

/// Lets one operation fail, opens again where the store has failed, goes on to the end, cuts the power, judges.
pub fn fail(recording: &Recording, number: usize, fault: Fault, options: &Options) -> Result<(), String> {
    let (dir, disk) = (scratch(), SimDisk::new(recording.seed ^ ((number as u64) << 20)));
    let view = dir.path().join("view");
    disk.fail_at(number as u64, fault);
    let mut run = Run::new(&disk, &view, options);
    let mut stepped = run.open().or_else(|stop| reopened(&mut run, stop))?;
    run.essences.push(essence(&stepped));
    let mut from = 0;
    loop {
        let stop = match run.steps(stepped, &recording.steps, from) {
            Ok(stepped) => break drop(stepped),
            Err(stop) => stop,
        };
        let failed = run.flight.lock().unwrap().step;
        stepped = reopened(&mut run, stop)?;
        let (found, before) = (essence(&stepped), run.essences.last().unwrap());
        let is_as_recorded = recording.essences[failed] == *before;
        if found != *before && !(is_as_recorded && recording.essences[failed + 1] == found) {
            return Err(format!("after the failed step {failed} there is another state"));
        }
        run.essences.push(found);
        from = failed + 1;
    }
    run.flight.lock().unwrap().look();
    disk.power_cycle(CUTS[number % 4]);
    let claims = run.flight.lock().unwrap().claims.clone();
    let wanted =
        Expected { essences: vec![run.essences.last().unwrap()], claims: &claims, bytes: &run.bytes };
    judge(&disk, Some(&files(&view)), options, &wanted)
}
