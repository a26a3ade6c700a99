//! The fault file system and the drill that stands on it. They need root and FUSE; where either is missing they say
//! "not verified" and show nothing. `make build` first.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sonae_chaos::drill::power_cut;
use sonae_chaos::fault_fs::{Fault, FaultFs, Loss, missing};

/// A fault file system on a folder of its own. `None` where there cannot be one, which is said.
fn mounted() -> Option<(FaultFs, PathBuf, tempfile::TempDir)> {
    if !can_verify() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("disk");
    Some((FaultFs::mount(&at, 1).unwrap(), at, dir))
}

fn can_verify() -> bool {
    let missing = missing();
    if let Some(what) = &missing {
        println!("not verified: {what}");
    }
    missing.is_none()
}

/// Goal: contents need a flush of the file, names one of their folder, as on the strictest real disk. Method: files
/// with one, the other, both and neither; a cut.
#[test]
fn only_what_was_flushed_survives() {
    let Some((mut disk, at, _dir)) = mounted() else { return };
    for name in ["neither", "contents", "both"] {
        let mut file = File::create(at.join(name)).unwrap();
        file.write_all(b"kept").unwrap();
        if name == "contents" {
            file.sync_data().unwrap();
        }
    }
    disk.power_cycle(Loss::Drop).unwrap();
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);

    let mut file = File::create(at.join("both")).unwrap();
    file.write_all(b"kept").unwrap();
    File::open(&at).unwrap().sync_all().unwrap();
    drop(file);
    disk.power_cycle(Loss::Drop).unwrap();
    assert_eq!(fs::read(at.join("both")).unwrap(), b"");
    let mut file = File::options().write(true).open(at.join("both")).unwrap();
    file.write_all(b"kept").unwrap();
    file.sync_data().unwrap();
    fs::rename(at.join("both"), at.join("renamed")).unwrap();
    drop(file);
    disk.power_cycle(Loss::Drop).unwrap();
    assert_eq!(fs::read(at.join("both")).unwrap(), b"kept", "the rename was not flushed");
}

/// Goal: faults come when they were asked for, once; flushes lie and are slow when they shall. Method: each, between
/// operations that go well.
#[test]
fn faults_are_told_and_come_once() {
    let Some((mut disk, at, _dir)) = mounted() else { return };
    let path = at.join("file");
    let mut file = File::create(&path).unwrap();
    File::open(&at).unwrap().sync_all().unwrap();
    for (fault, number) in [(Fault::Io, 5), (Fault::NoSpace, 28)] {
        disk.fail_after(0, fault);
        assert_eq!(file.write_all(b"x").unwrap_err().raw_os_error(), Some(number));
        assert!(!disk.is_fault_due());
        file.write_all(b"x").unwrap();
        disk.fail_after(0, fault);
        assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(number));
        file.sync_all().unwrap();
    }
    let quick = Instant::now();
    file.sync_all().unwrap();
    let quick = quick.elapsed();
    disk.set_slow(quick * 10 + Duration::from_millis(20));
    let slow = Instant::now();
    file.sync_all().unwrap();
    assert!(slow.elapsed() > quick * 5);
    disk.set_slow(Duration::ZERO);

    fs::write(&path, b"true").unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    disk.set_lying(true);
    fs::write(&path, b"lied").unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    drop(file);
    disk.power_cycle(Loss::Drop).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"true");
    assert!(disk.flip(&["file"], 0, 1) && !disk.flip(&["file"], 9, 1));
    assert_eq!(fs::read(&path).unwrap(), b"urue");
    disk.cut();
    assert!(fs::write(&path, b"x").is_err() && disk.is_off());
}

/// Goal: no acknowledged write is lost by a power cut of the real program's disk. Method: cuts under load and at the
/// start, EIO and ENOSPC; outside ledger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_write_survives_a_power_cut() {
    if !can_verify() {
        return;
    }
    // A second install changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let report = power_cut::run_drill(dir.path(), 7, None, 1, false).await.unwrap();
    assert!(
        report.acknowledged > 0 && report.cut_starts > 0 && report.faults_met > 0,
        "nothing was shown: {report:?}"
    );
    assert!(report.holds(), "{report:?}");
}

/// Goal: the drill can fail. Method: a disk whose flushes lie.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_lies_is_caught() {
    if !can_verify() {
        return;
    }
    // A second install changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let report = power_cut::run_drill(dir.path(), 1, None, 1, true).await.unwrap();
    assert!(report.acknowledged > 0 && report.lost > 0, "{report:?}");
}

/// Goal: rot of what was acknowledged is said by the real program, and changes nothing. Method: flip a bit of the
/// journal; flip it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_said() {
    if !can_verify() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (rotten, said, whole) = power_cut::flip_a_bit(dir.path(), 1).await.unwrap();
    assert_eq!((rotten, whole), (5, 0), "{said}");
    assert!(said.contains("is corrupt at byte"), "{said}");
}
