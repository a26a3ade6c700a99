//! A box: the real uplink and the real store on a simulated disk, at a simulated address.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use sonae_edge::neighbours::Known;
use sonae_edge::uplink::{self, Purpose, Ways};
use sonae_journal::sim::{Cut, SimDisk};
use sonae_proto::bundle::ReplicaBundle;
use sonae_proto::descriptor::CloudDescriptor;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::Incarnation;
use sonae_proto::signed::Signed;
use sonae_store::identity::ReplicaKeys;
use sonae_store::keyring::Keyring;
use sonae_store::options::Options as StoreOptions;
use sonae_store::proof::Proofs;
use sonae_store::status::Uplink as Shared;
use sonae_store::testing::{Board, Stepped, opening};
use sonae_store::{Quarantine, Store, enrolment};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::keepers;
use super::net::Net;
use super::socket::Socket;
use super::time::Time;

/// A box that stands somewhere.
pub(crate) struct Replica {
    slot: usize,
    data: PathBuf,
    bundle: ReplicaBundle,
    cloud: CloudDescriptor,
    disk: SimDisk,
    /// Its own address, behind its router.
    pub inside: SocketAddr,
    pub name: Incarnation,
    /// How often it was started.
    starts: u64,
    pub life: Option<Life>,
}

/// From a start to the loss of power.
pub(crate) struct Life {
    pub store: Store,
    pub shared: Shared,
    /// Whether the uplink wants a new incarnation.
    pub renew: watch::Receiver<bool>,
    endpoint: Endpoint,
    uplink: JoinHandle<Result<(), uplink::UplinkError>>,
    /// Kept, since the uplink ends with it.
    _stop: watch::Sender<bool>,
}

impl Replica {
    /// Enrols a box; it does not run yet.
    pub fn enrol(
        board: &Board,
        bundle: ReplicaBundle,
        dir: &Path,
        slot: usize,
        seed: u64,
        time: &Time,
    ) -> Result<Self> {
        let data = dir.join(format!("box-{slot}"));
        enrolment::enrol(&data, &bundle, Beginning::Enrolment, time.wall_ms())?;
        let keys = ReplicaKeys::load(&data, &bundle)?;
        let cloud = Signed::<CloudDescriptor>::verify(&bundle.descriptor, &board.root())?.body().clone();
        let number = u8::try_from(slot + 1).context("too many boxes")?;
        Ok(Self {
            slot,
            data,
            bundle,
            cloud,
            disk: SimDisk::new(seed),
            inside: SocketAddr::from(([192, 168, number, 2], 5_000)),
            name: keys.name(),
            starts: 0,
            life: None,
        })
    }

    /// Starts it: the store recovers, the uplink dials.
    pub fn start(&mut self, net: &Net, time: &Time) -> Result<()> {
        self.starts += 1;
        let options = StoreOptions {
            journal: sonae_journal::Options {
                segment_bytes: 256 * 1024,
                free_segments_max: 1,
                reserve_segments: 1,
                ..sonae_journal::Options::default()
            },
            ..StoreOptions::default()
        };
        let clock = time.box_clock();
        let mut open = opening(&self.data, &self.bundle, clock.clone(), Arc::new(self.disk.clone()), options);
        (open.journal, open.batches) = ("/journal".into(), "/batches".into());
        // The view is derived. What a killed process would have let go of, this process still holds.
        open.view = self.data.join(format!("view-{}", self.starts));
        let mut stepped = Stepped::open(open)?;
        let (_, closed) = mpsc::unbounded_channel();
        let sealed = std::mem::replace(&mut stepped.sealed, closed);
        let (store, evidence) = (stepped.store.clone(), stepped.evidence.clone());
        keepers::add(self.slot, stepped);
        let socket = Socket::open(net, self.inside);
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, runtime)?;
        let (shared, renew, (stop, stopped)) =
            (Shared::default(), watch::Sender::new(false), watch::channel(false));
        let renewing = renew.subscribe();
        let known = watch::Sender::new(Known::at_start(&evidence, store.documents()));
        let config = uplink::Config {
            keys: ReplicaKeys::load(&self.data, &self.bundle)?,
            tls_certificate_pem: self.bundle.tls_certificate_pem.clone(),
            bundled_documents: Keyring::documents_of(&self.bundle),
            cloud: self.cloud.clone(),
            cloud_override: None,
            ways: Some(Ways { endpoint: endpoint.clone(), tcp: false }),
            store: store.clone(),
            evidence,
            sealed,
            shared: shared.clone(),
            clock,
            renew,
            snapshots: false,
            quarantine: Quarantine::of(&self.data),
            couriers: mpsc::channel(1).1,
            purpose: Purpose::Serve,
            proofs: Proofs::default(),
            known,
        };
        let uplink = tokio::spawn(uplink::run(config, stopped));
        self.life = Some(Life { store, shared, renew: renewing, endpoint, uplink, _stop: stop });
        Ok(())
    }

    /// Takes its power away, and decides what is left on its disk.
    pub async fn power_cut(&mut self, net: &Net, cut: Cut) {
        net.detach(self.inside);
        keepers::kill(self.slot);
        if let Some(life) = self.life.take() {
            // Nothing of it reaches the line any more; this only lets go of it.
            life.uplink.abort();
            let _ = life.uplink.await;
            life.endpoint.close(0_u32.into(), b"");
        }
        self.disk.power_cycle(cut);
    }
}
