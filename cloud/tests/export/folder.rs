//! Two sites and an export of them, in a folder of the test.

use std::fs;
use std::path::PathBuf;

use ed25519_dalek::VerifyingKey;
use sonae_cloud::export::{Request, Summary, run};
use sonae_proto::export::Line;
use sonae_proto::vector::Heads;

use crate::common::board::SCHOOL;

pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn sites(&self) -> [PathBuf; 2] {
        ["a", "b"].map(|name| self.join(name))
    }

    pub fn out(&self) -> PathBuf {
        self.join("export")
    }

    pub fn request(&self, root: VerifyingKey, expect: Heads) -> Request {
        let (out, sites) = (self.out(), self.sites().to_vec());
        Request { school: SCHOOL.parse().unwrap(), out, sites, root: Some(root), expect }
    }

    /// Exports anew.
    pub async fn export(&self, request: &Request) -> Summary {
        let _ = fs::remove_dir_all(&request.out);
        run(request, &mut |_| {}).await.unwrap()
    }

    pub fn index(&self) -> Vec<Line> {
        let text = fs::read_to_string(self.out().join("index.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}
