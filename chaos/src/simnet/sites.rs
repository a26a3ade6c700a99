//! Sites in memory, which can fail or hang, and which keep a record of what was really stored.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, Extensions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use sonae_cloud::site::Site;
use tokio::sync::watch;

/// How a site does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    Fails,
    /// It answers when it is well again.
    Hangs,
}

/// The disk of a site; it outlives nodes.
#[derive(Debug)]
pub(crate) struct Disk {
    inner: InMemory,
    mood: watch::Sender<Mood>,
    stored: Mutex<Vec<Bytes>>,
    /// It says of the first merged object that it has it, and loses it.
    loses_merged: AtomicBool,
}

impl Disk {
    pub fn new(loses_merged: bool) -> Arc<Self> {
        let mood = watch::Sender::new(Mood::Well);
        let loses_merged = AtomicBool::new(loses_merged);
        Arc::new(Self { inner: InMemory::new(), mood, stored: Mutex::default(), loses_merged })
    }

    /// The site on it, for one life of a node.
    pub fn site(self: &Arc<Self>, number: usize) -> Site {
        let id = [u8::try_from(number).unwrap_or(u8::MAX); 16];
        Site::over(id, format!("site {number}"), Arc::new(Store(Arc::clone(self))))
    }

    pub fn set_mood(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Takes the objects that were stored since the last time.
    pub fn take_stored(&self) -> Vec<Bytes> {
        std::mem::take(&mut self.stored.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads all objects that it holds now.
    pub async fn objects(&self) -> Result<Vec<Bytes>> {
        let listed: Vec<ObjectMeta> = self.inner.list(None).try_collect().await?;
        let mut objects = Vec::new();
        for meta in listed {
            objects.push(self.inner.get(&meta.location).await?.bytes().await?);
        }
        Ok(objects)
    }

    async fn is_usable(&self) -> Result<()> {
        let mut mood = self.mood.subscribe();
        let _ = mood.wait_for(|mood| *mood != Mood::Hangs).await;
        if *self.mood.borrow() == Mood::Fails {
            return Err(Error::Generic { store: "simulated", source: "told to fail".into() });
        }
        Ok(())
    }
}

/// A site's disk as the cloud sees it.
#[derive(Debug)]
struct Store(Arc<Disk>);

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a simulated site")
    }
}

#[async_trait]
impl ObjectStore for Store {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.is_usable().await?;
        let is_merged = location.as_ref().contains("/merged/");
        if is_merged && self.0.loses_merged.swap(false, Ordering::SeqCst) {
            return Ok(PutResult { e_tag: None, version: None, extensions: Extensions::default() });
        }
        let bytes = Bytes::from(payload.clone());
        let stored = self.0.inner.put_opts(location, payload, options).await?;
        self.0.stored.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        Ok(stored)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.is_usable().await?;
        self.0.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.inner.copy_opts(from, to, options).await
    }
}
