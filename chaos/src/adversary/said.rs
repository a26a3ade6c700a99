//! What a box under attack says to the cloud, and how it reads what comes back.

use sonae_proto::batch::Batch;
use sonae_proto::ended::EndedHashes;
use sonae_proto::ids::LogName;
use sonae_proto::signed::Signed;
use sonae_proto::uplink::BatchReply;
use sonae_proto::wire::{Frame, Hello, KeyDocuments, PROTOCOL};

use super::appliance::Appliance;
use super::proxy::{Proxy, decode};

impl Appliance<'_> {
    pub fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL,
            school: self.history.board.school.code,
            identity: self.life.identity.clone(),
            loss_counter: self.engine.loss_counter(),
            receipted: self.engine.receipted(),
            have: self.fold.sequences.clone(),
            manifest_version: self.engine.manifest_version(),
            nonce: "00".repeat(16),
            software: "adversary".into(),
            ended: EndedHashes::new(),
        }
    }

    pub(super) fn greet(&mut self, proxy: &mut Proxy<'_>) -> Result<(), &'static str> {
        let mut hello = self.hello();
        self.engine.say_ended(&mut hello);
        let mut welcomed = false;
        for bytes in proxy.hello(&self.life.tls_key, &hello) {
            match decode(&bytes) {
                Some(Frame::Welcome(welcome)) => {
                    welcomed = true;
                    let welcome = self.engine.complete(&welcome).into_owned();
                    if welcome.complete {
                        self.welcomes.push(welcome.heads.clone());
                    }
                    self.engine.handle_welcome(&welcome, self.now_ms);
                }
                Some(Frame::News(news)) => self.engine.handle_news(&news, self.now_ms),
                Some(Frame::Keys(keys)) => self.take_documents(*keys),
                Some(Frame::Refusal(_)) => return Err("the cloud refuses this replica"),
                Some(_) => return Err("a frame out of turn"),
                None => return Err("a frame without meaning"),
            }
        }
        if welcomed { Ok(()) } else { Err("no welcome came") }
    }

    /// As the keeper does: the board's signature, and a higher version.
    pub fn take_documents(&mut self, documents: KeyDocuments) {
        use sonae_proto::manifest::Manifest;
        let board = self.history.board.root.verifying_key();
        let version = |documents: &KeyDocuments| {
            let signed = Signed::<Manifest>::verify(&documents.manifest, &board).ok()?;
            (signed.body().school == self.history.board.school.code).then(|| signed.body().version)
        };
        if version(&documents) > version(&self.documents) {
            self.documents = documents;
        }
    }

    pub(super) fn send(
        &mut self,
        proxy: &mut Proxy<'_>,
        log: LogName,
        first: u64,
    ) -> Result<(), &'static str> {
        let batch = self.held.get(&log).into_iter().flatten().find(|batch| batch.header().first == first);
        let Some(batch) = batch.cloned() else { return Err("a batch is to be sent that is not held") };
        let frames = proxy.batch(&batch, self.engine.loss_counter());
        // A stream without an answer is waited for; the watch over the line ends it.
        let Some(bytes) = frames.first() else { return Err("no answer to a batch") };
        let reply = match decode(bytes) {
            Some(Frame::Receipt(bytes)) => BatchReply::Receipt(bytes),
            Some(Frame::Refusal(refusal)) => BatchReply::Refusal(refusal),
            Some(_) => return Err("a batch was answered with another frame"),
            None => return Err("a frame without meaning"),
        };
        self.engine.handle_batch_reply(log, reply, self.now_ms);
        Ok(())
    }

    pub(super) fn fetched(&mut self, frames: &[Vec<u8>]) -> Result<(), &'static str> {
        for bytes in frames {
            match decode(bytes) {
                Some(Frame::Batch(bytes)) => match Batch::from_bytes(bytes) {
                    Ok(batch) => self.engine.handle_fetched(batch),
                    Err(_) => return Err("a served batch is none"),
                },
                Some(Frame::FetchEnd(_)) => {
                    self.engine.handle_fetch_end();
                    return Ok(());
                }
                Some(_) => return Err("a frame out of turn"),
                None => return Err("a frame without meaning"),
            }
        }
        Err("a fetch did not end")
    }
}
