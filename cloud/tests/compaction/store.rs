//! An object store in memory that dies at an operation, loses what it was given, lists late, or has things taken away
//! while somebody reads.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What goes wrong, at one site or at several together.
#[derive(Debug, Default)]
pub struct Trouble {
    /// Operations so far.
    operations: AtomicU64,
    /// The first that fails, from 1; all behind it fail as well. 0 for none.
    dies_at: AtomicU64,
    /// Merged objects are taken, and lost.
    pub loses_merged: AtomicBool,
    /// What lies here is not listed, if its name holds this.
    pub hides: Mutex<Option<&'static str>>,
    /// While somebody else has it, writes hang.
    pub writes: tokio::sync::RwLock<()>,
    /// At this operation what these paths name has gone, and nothing is hidden any more.
    vanish: Mutex<Option<(u64, Vec<Path>)>>,
}

impl Trouble {
    pub fn die_at(&self, n: u64) {
        self.dies_at.store(n, Ordering::SeqCst);
    }

    pub fn was_hit(&self) -> bool {
        let at = self.dies_at.load(Ordering::SeqCst);
        at > 0 && self.operations.load(Ordering::SeqCst) >= at
    }

    pub fn vanish(&self, after: u64, paths: Vec<Path>) {
        let at = self.operations.load(Ordering::SeqCst) + after;
        *self.vanish.lock().unwrap() = Some((at, paths));
    }

    /// Whether what was to vanish has.
    pub fn has_vanished(&self) -> bool {
        self.vanish.lock().unwrap().is_none()
    }

    async fn step(&self, inner: &InMemory) -> Result<()> {
        let now = self.operations.fetch_add(1, Ordering::SeqCst) + 1;
        let gone = self.vanish.lock().unwrap().take_if(|(at, _)| now >= *at);
        if gone.is_some() {
            *self.hides.lock().unwrap() = None;
        }
        for path in gone.into_iter().flat_map(|(_, paths)| paths) {
            inner.delete(&path).await?;
        }
        let dies_at = self.dies_at.load(Ordering::SeqCst);
        if dies_at > 0 && now >= dies_at {
            return Err(Error::Generic { store: "test", source: "told to fail".into() });
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
pub struct Store {
    pub inner: Arc<InMemory>,
    pub trouble: Arc<Trouble>,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store in trouble")
    }
}

#[async_trait]
impl ObjectStore for Store {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let _let = self.trouble.writes.read().await;
        self.trouble.step(&self.inner).await?;
        if self.trouble.loses_merged.load(Ordering::SeqCst) && location.as_ref().contains("merged") {
            return Ok(PutResult { e_tag: None, version: None, extensions: Default::default() });
        }
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.trouble.step(&self.inner).await?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |location: Result<Path>| {
            let Store { inner, trouble } = store.clone();
            async move {
                trouble.step(&inner).await?;
                let location = location?;
                inner.delete(&location).await?;
                Ok(location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            if let Err(error) = store.trouble.step(&store.inner).await {
                return stream::iter(vec![Err(error)]);
            }
            let hides = *store.trouble.hides.lock().unwrap();
            let all: Vec<_> = store.inner.list(prefix.as_ref()).collect().await;
            let is_shown = |meta: &Result<ObjectMeta>| {
                let name = meta.as_ref().map(|meta| meta.location.to_string()).unwrap_or_default();
                hides.is_none_or(|part| !name.contains(part))
            };
            stream::iter(all.into_iter().filter(is_shown).collect::<Vec<_>>())
        };
        stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
