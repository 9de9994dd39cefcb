//! A damaged log is rejected with the damage and its position, and never opened as a shorter one.

use std::{fs, io, path::Path};

use highwater::{Error, raft, simulation::Random};
use openraft::{RaftLogReader, Vote, storage::RaftLogStorage, type_config::alias::VoteOf};

use crate::{
    medium::{Medium, append_durably, entry, log_id, tiny},
    state_machine::Types,
};

/// Returns a closed log of several segments.
async fn written(directory: &Path) -> Medium {
    let medium = Medium::Directory(directory.to_owned());
    let mut store = medium.open(tiny()).await.unwrap();
    for term in 1..40 {
        store.save_vote(&Vote::new(term, 1)).await.unwrap();
        let indexes = term * 10..term * 10 + 10;
        let large = indexes.map(|index| entry(term, index, "x".repeat(90))).collect();
        append_durably(&mut store, large).await.unwrap();
    }
    store.save_committed(Some(log_id(39, 395))).await.unwrap();
    store.close().await.unwrap();
    medium
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let all = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let mut logs: Vec<_> = all.filter(|path| fs::metadata(path).unwrap().len() > 1000).collect();
    logs.sort();
    logs
}

#[tokio::test]
async fn flipped_bit_is_rejected_or_harmless() {
    let mut random = Random::new(5);
    let (mut refused, mut harmless) = (0, 0);
    let original = tempfile::tempdir().unwrap();
    written(original.path()).await;
    for _ in 0..60 {
        let directory = tempfile::tempdir().unwrap();
        for file in fs::read_dir(original.path()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), directory.path().join(file.file_name())).unwrap();
        }
        let files = files(directory.path());
        let path = &files[random.below(files.len())];
        let mut bytes = fs::read(path).unwrap();
        let place = random.below(bytes.len());
        bytes[place] ^= 1 << random.below(8);
        fs::write(path, bytes).unwrap();
        let medium = Medium::Directory(directory.path().to_owned());
        match read_all(&medium).await {
            Err(error) => {
                assert!(is_explained(&error), "{error:?}");
                refused += 1;
            }
            // The bit is in unused bytes, or before the checkpoint at which opening starts.
            Ok(all) => {
                assert_eq!(all, whole());
                harmless += 1;
            }
        }
    }
    assert!(refused > 20 && harmless > 0, "{refused} refused, {harmless} harmless");
}

/// The vote and the number of entries.
type All = (Option<VoteOf<Types>>, usize);

fn whole() -> All {
    (Some(Vote::new(39, 1)), 390)
}

async fn read_all(medium: &Medium) -> io::Result<All> {
    let mut store = medium.open(tiny()).await?;
    let state = store.get_log_state().await?;
    assert_eq!(state.last_log_id, Some(log_id(39, 399)), "a shorter log");
    let read = store.try_get_log_entries(..).await?;
    Ok((store.read_vote().await?, read.len()))
}

/// Returns true if the error reports damage and its position.
fn is_explained(error: &io::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> =
        error.get_ref().map(|inner| inner as _);
    while let Some(error) = source {
        match error.downcast_ref::<raft::Error>() {
            Some(raft::Error::BadRecord { .. } | raft::Error::Log(Error::Corrupt { .. }))
            | Some(raft::Error::Log(
                Error::UnsupportedVersion { .. } | Error::UnsupportedFrame { .. },
            )) => return true,
            _ => source = error.source(),
        }
    }
    false
}

#[tokio::test]
async fn missing_segment_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let medium = written(directory.path()).await;
    let files = files(directory.path());
    assert!(files.len() > 3);
    fs::remove_file(&files[files.len() / 2]).unwrap();
    let error = read_all(&medium).await.unwrap_err();
    assert!(is_explained(&error), "{error:?}");
}
