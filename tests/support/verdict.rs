//! Holds the versions of a table against the model of its topic.

use std::path::{Path, PathBuf};

use super::history::{self, Commit};
use super::model::Model;
use super::program::Site;
use super::python::{Question, Reader};
use super::readback::{self, Ranges};

/// Reads these versions of an upsert table with an independent reader: each must be the fold of the topic up to its own marks.
pub async fn versions_equal_their_folds(reader: Reader, table: &Path, versions: &[&Commit], model: &Model, out: &Path) {
    let asked: Vec<_> = versions.iter().map(|commit| (Question::Version(commit.version), *commit)).collect();
    answers_equal_their_folds(reader, table, &asked, model, out).await;
}

/// The same where the versions, oldest first, are asked for in any way.
pub async fn answers_equal_their_folds(reader: Reader, table: &Path, asked: &[(Question, &Commit)], model: &Model, out: &Path) {
    // Some hundred versions at a time, so that what the reader writes down does not fill a disk.
    for asked in asked.chunks(100) {
        let questions: Vec<Question> = asked.iter().map(|(question, _)| question.clone()).collect();
        let read = reader.ask(table, &questions, out).await;
        let mut fold = model.fold();
        for ((question, commit), files) in asked.iter().zip(read) {
            let expected = fold.upto(&commit.marks);
            if let Err(difference) = readback::check_orders(&files, expected) {
                panic!(
                    "{} by {} at {question:?}, version {} with marks {:?}: {difference}",
                    table.display(),
                    reader.name(),
                    commit.version,
                    commit.marks
                );
            }
            files
                .iter()
                .for_each(|file| std::fs::remove_file(file).expect("what the reader wrote goes away"));
        }
    }
}

/// Every version of an audit table added exactly the records between the marks before it and its own: each once, each as it was produced.
pub fn every_version_added_what_its_marks_say(table: &Path, history: &[Commit], model: &Model) {
    let steps = history::steps(history);
    for commit in history {
        let files: Vec<PathBuf> = commit.added.iter().map(|path| table.join(path)).collect();
        if let Err(difference) = readback::check_records(&files, &steps[&commit.version], model) {
            panic!(
                "{} at version {} with marks {:?}: {difference}",
                table.display(),
                commit.version,
                commit.marks
            );
        }
    }
}

/// An independent reader sees every record of the topic once in an audit table.
pub async fn every_record_is_there_once(reader: Reader, table: &Path, version: u64, model: &Model, out: &Path) {
    let ranges: Ranges = model.end().into_iter().map(|(partition, last)| (partition, 0..=last)).collect();
    let files = reader.read(table, &[version], out).await.concat();
    if let Err(difference) = readback::check_records(&files, &ranges, model) {
        panic!("{} by {}: {difference}", table.display(), reader.name());
    }
}

/// Both tables hold the whole topic, and every one of their versions is what its marks say.
pub async fn every_version_is_right(site: &Site, model: &Model) {
    let (orders, audit) = (site.table("orders"), site.table("audit"));
    let history = history::read(&audit);
    assert_eq!(history.last().expect("the table has versions").marks, model.end());
    every_version_added_what_its_marks_say(&audit, &history, model);
    let history = history::read(&orders);
    assert_eq!(history.last().expect("the table has versions").marks, model.end());
    let versions: Vec<_> = history.iter().collect();
    versions_equal_their_folds(Reader::Deltalake, &orders, &versions, model, &site.out()).await;
}
