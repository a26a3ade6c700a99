//! The cloud: the real node on simulated sites, at a simulated address.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sonae_cloud::compaction::Rules;
use sonae_cloud::identity::NodeIdentity;
use sonae_cloud::lock::DataLock;
use sonae_cloud::node::{Node, Options as NodeOptions};
use sonae_cloud::server::Door;
use sonae_proto::bundle::{BundleKind as _, CloudBundle};
use sonae_proto::ids::Hash32;
use sonae_store::testing::Board;
use sonae_trust::entropy::SystemEntropy;
use sonae_trust::leaf::ServerNames;

use super::net::Net;
use super::options::Options;
use super::planted::Planted;
use super::sites::Disk;
use super::socket::Socket;
use super::time::Time;

/// Where the node listens.
const ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)), 4433);

/// How long certificates are good for: longer than any run.
const CERTIFICATE_DAYS: u16 = 300;

/// Objects are merged, and deleted, within a run.
const COMPACTION: Rules = Rules {
    inputs_min: 4,
    bytes_max: 16 * 1024 * 1024,
    superseded: Duration::from_secs(10),
    interval: Duration::from_secs(5),
};

/// The cloud with its sites.
pub(crate) struct Cloud {
    bundle: CloudBundle,
    options: NodeOptions,
    pub disks: Vec<Arc<Disk>>,
    planted: Option<Planted>,
    node: Option<Node>,
}

impl Cloud {
    /// Makes a cloud that the board's descriptor names; it does not run yet.
    pub fn found(
        board: &mut Board,
        dir: &Path,
        options: &Options,
        planted: Option<Planted>,
        time: &Time,
    ) -> Result<Self> {
        let names = ServerNames::new(&["cloud.example"], &[ADDRESS.ip()])?;
        let now = time::OffsetDateTime::from_unix_timestamp(i64::try_from(time.wall_ms() / 1_000)?)?;
        let server =
            board.authority().issue_cloud_server(&names, CERTIFICATE_DAYS, now, &mut SystemEntropy)?;
        let leaf = CertificateDer::from_pem_slice(server.certificate_pem.as_bytes())
            .ok()
            .context("the certificate of the cloud")?;
        board.tls_certificates = vec![Hash32(*blake3::hash(&leaf).as_bytes())];
        board.hosts = vec![ADDRESS.to_string()];
        let bundle = CloudBundle {
            doc: CloudBundle::LABEL.to_owned(),
            board_root: HEXLOWER.encode(board.root().as_bytes()),
            board_name: "架空市教育委員会".to_owned(),
            ca_pem: board.authority().certificate_pem().to_owned(),
            tls_certificate_pem: server.certificate_pem.clone(),
            tls_key_pem: server.private_key_pem.to_string(),
            receipt_seed: HEXLOWER.encode(&board.receipt_key.to_bytes()),
            descriptor: board.descriptor().text().to_owned(),
        };
        let places = (0..options.sites).map(|site| PathBuf::from(format!("site-{site}")));
        let options = NodeOptions {
            data: dir.join("cloud"),
            sites: places.collect(),
            quorum: options.quorum,
            listen: ADDRESS,
            listen_tcp: None,
            clock: time.node_clock(),
            // A thread would end at a moment that no seed decides.
            status_file: false,
            compaction: COMPACTION,
        };
        // The first of them loses a merged object that it has acknowledged: reading back has to find out.
        let disks = (0..options.sites.len()).map(|number| Disk::new(number == 0)).collect();
        Ok(Self { bundle, options, disks, planted, node: None })
    }

    /// Starts the node on what its sites hold.
    pub async fn start(&mut self, net: &Net) -> Result<()> {
        let mut identity = NodeIdentity::of_bundle(&self.bundle)?;
        if self.planted == Some(Planted::AddressChangeForgotten) {
            identity.tls.quic.migration(false);
        }
        let door = Door::over(Socket::open(net, ADDRESS), &identity)?;
        let sites = self.disks.iter().enumerate().map(|(number, disk)| disk.site(number)).collect();
        let lock = DataLock::take(&self.options.data)?;
        self.node = Some(Node::start_behind(door, identity, &self.options, sites, &[], lock).await?);
        Ok(())
    }

    /// Stops the node, if it runs.
    pub async fn stop(&mut self, net: &Net) {
        if let Some(node) = self.node.take() {
            node.stop().await;
            net.detach(ADDRESS);
        }
    }

    /// Histories that contradict one another, by the node's own count.
    pub fn equivocations(&self) -> u64 {
        self.node.as_ref().map_or(0, |node| node.status().equivocations)
    }
}
