//! An object store in memory whose writes fail when they are told to.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Which puts fail.
#[derive(Debug, Default)]
pub struct Faults {
    /// Puts so far.
    pub puts: AtomicU64,
    /// The first that fails, from 1; 0 for none.
    pub from: AtomicU64,
    /// How many fail.
    pub count: AtomicU64,
}

impl Faults {
    pub fn nth(n: u64) -> Arc<Self> {
        Arc::new(Self { puts: AtomicU64::new(0), from: AtomicU64::new(n), count: AtomicU64::new(1) })
    }

    pub fn was_hit(&self) -> bool {
        let from = self.from.load(Ordering::SeqCst);
        from > 0 && self.puts.load(Ordering::SeqCst) >= from
    }

    fn next_fails(&self) -> bool {
        let put = self.puts.fetch_add(1, Ordering::SeqCst) + 1;
        let from = self.from.load(Ordering::SeqCst);
        from > 0 && put >= from && put < from + self.count.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
pub struct FaultStore {
    pub inner: Arc<InMemory>,
    pub faults: Arc<Faults>,
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a failing store")
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if self.faults.next_fails() {
            return Err(Error::Generic { store: "test", source: "told to fail".into() });
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
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
