//! The story of one image: open, guard, stream, verify, commit; and over again where the source can not be resumed.

use std::thread::sleep;
use std::time::{Duration, Instant};

use events::{EventKind, Events, Phase};
use tokio::runtime::Runtime;

use crate::buffer::{Buffer, CHUNK, Chunk, Pool};
use crate::cancel::Cancel;
use crate::compressed::{Compression, Unpack};
use crate::error::{Error, ErrorKind};
use crate::hold_back::{Unverified, Verified};
use crate::inspect::sectors::{self, Mismatch, Verdict};
use crate::inspect::{self, Kind, LOOK, Rule};
use crate::pipeline::{self, Decoder, Interrupt, Output, POOL, POOL_OF_PIECES, Pass};
use crate::preflight::{Opened, Packing};
use crate::progress::{self, Meter, Pace};
use crate::proof::Expected;
use crate::qcow2::{self, Qcow2Error};
use crate::raw;
use crate::request::{ImageRequest, Transport, Written};
use crate::sink::BlockSink;
use crate::source::Source;
use crate::translate::Translate;

/// **Overwrites the disk behind `sink` with an image.** Blocks until the image is verified and durable on the disk, or
/// failed.
///
/// Everything that can be known before a byte is written is checked before a byte is written: the source answers, the
/// format is the declared one and breaks no rule, the image fits. Then the first and last MiB of the disk are zeroed, the
/// image is streamed, and only when its digest matches, and its signature where one is asked for, are its first and last MiB
/// written.
///
/// Progress goes to `events`: phases open, write, verify, commit, with `Retrying` where a transfer broke, and one `Failed`
/// at the end of a failed write.
///
/// # Errors
/// See [`Error::kind`]. Where [`Error::left_disk_unbootable`] says so, the disk was touched, and both its ends are zero.
pub fn write_image(
    request: &ImageRequest,
    transport: &Transport,
    mut sink: Box<dyn BlockSink>,
    events: &Events,
    cancel: &Cancel,
) -> Result<Written, Error> {
    let job = Job { request, transport, events, cancel, started: Instant::now() };
    job.run(sink.as_mut()).inspect_err(|error| {
        let message = error.report();
        tracing::error!(image = request.label, error = message, "writing the image failed");
        events.emit(EventKind::Failed { phase: error.phase(), message });
    })
}

struct Job<'a> {
    request: &'a ImageRequest,
    transport: &'a Transport,
    events: &'a Events,
    cancel: &'a Cancel,
    started: Instant,
}

impl Job<'_> {
    fn run(&self, sink: &mut dyn BlockSink) -> Result<Written, Error> {
        let mut source = Source::new(
            &self.request.sources,
            self.request.authorization.as_ref(),
            &self.request.proxies,
            self.transport,
            self.events,
            self.cancel,
        )?;
        source.sum_as_sent(self.expected());
        let runtime = pipeline::runtime()?;
        let result = self.until_done(&runtime, &mut source, sink);
        // A name lookup that hangs must not hold up the answer.
        drop(source);
        runtime.shutdown_background();
        result
    }

    fn until_done(
        &self,
        runtime: &Runtime,
        source: &mut Source<'_>,
        sink: &mut dyn BlockSink,
    ) -> Result<Written, Error> {
        let mut touched = false;
        let mut restarted = 0;
        let mut mismatched = 0;
        let sources = u32::try_from(source.count()).unwrap_or(u32::MAX);
        loop {
            let error = match self.once(runtime, source, sink, &mut touched) {
                Ok(written) => return Ok(Written { restarted, ..written }),
                // What was damaged on the way may come whole the next time (data plane 1.4).
                Err(Interrupt::Failed(error))
                    if error.kind() == ErrorKind::ChecksumMismatch
                        && mismatched + 1 < self.tries(&error, sources) =>
                {
                    restarted += 1;
                    mismatched += 1;
                    source.restart_elsewhere();
                    match self.before_restart(error.report(), restarted) {
                        Ok(()) => continue,
                        Err(error) => error,
                    }
                }
                Err(Interrupt::Failed(error)) if is_late_table(&error) && source.allow_skim() => {
                    restarted += 1;
                    source.restart();
                    let reason = format!("{}: the tables of the image come too late", source.name());
                    match self.before_restart(reason, restarted) {
                        Ok(()) => continue,
                        Err(error) => error,
                    }
                }
                Err(Interrupt::Failed(error)) => error,
                Err(Interrupt::HungUp) => Error::Pipeline("a stage ended without a reason"),
                Err(Interrupt::Restart(reason)) if restarted + 1 < self.transport.attempts => {
                    restarted += 1;
                    source.restart();
                    let reason = format!("{}: the transfer can not be resumed ({reason})", source.name());
                    match self.before_restart(reason, restarted) {
                        Ok(()) => continue,
                        Err(error) => error,
                    }
                }
                Err(Interrupt::Restart(reason)) => {
                    Error::Unresumable { url: source.name(), reason, restarts: restarted }
                }
            };
            return Err(if touched { error.unbootable() } else { error });
        }
    }

    /// How often the whole image may be fetched: each source deserves a try, whatever another one holds. What a registry
    /// promises does not change by asking again.
    fn tries(&self, error: &Error, sources: u32) -> u32 {
        match error {
            Error::Promise { .. } => sources,
            _ => self.transport.digest_attempts.max(sources),
        }
    }

    /// Says that the write starts over, and waits as before any other try.
    fn before_restart(&self, reason: String, restarts: u32) -> Result<(), Error> {
        let delay = self.transport.retry_interval;
        let reason = format!("{reason}; the write starts over");
        tracing::warn!(image = self.request.label, reason, restarts, "write starts over");
        self.events.emit(EventKind::Retrying {
            phase: Phase::Write,
            reason,
            attempt: restarts + 1,
            attempts: self.transport.attempts,
            delay_seconds: delay.as_secs_f64(),
            resume_at: 0,
        });
        let until = Instant::now() + delay;
        while Instant::now() < until {
            if self.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            sleep(Duration::from_millis(100).min(until.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    /// One pass, from the first byte.
    fn once(
        &self,
        runtime: &Runtime,
        source: &mut Source<'_>,
        sink: &mut dyn BlockSink,
        touched: &mut bool,
    ) -> Result<Written, Interrupt> {
        let pool = Pool::new(POOL, CHUNK);
        let opening = progress::start(self.events, Phase::Open, source.name());
        let total = runtime.block_on(source.open())?;
        self.compare_promise(source)?;
        let mut first = pool.take(self.cancel)?;
        runtime.block_on(source.fill(&mut first))?;
        let plan = self.guard(runtime, source, total, &first, sink.size())?;
        if self.request.checks.whole_disk {
            runtime.block_on(self.guard_sectors(source, total, &first, &plan, sink))?;
        }
        self.preflight(runtime, source, total, &first, &plan, sink.size())?;
        pool.grow(plan.held);
        tracing::info!(
            image = self.request.label,
            source = source.name(),
            format = %plan.kind,
            declared = %self.request.format,
            published_bytes = total,
            virtual_size = plan.virtual_size,
            "image opened"
        );
        opening.finish(total);

        let writing = progress::start(self.events, Phase::Write, self.request.label.clone());
        let mut disk = Unverified::begin(sink, plan.virtual_size)?;
        *touched = true;
        if self.request.read_back {
            disk.remember();
        }
        let meter = Meter::new(self.events, total);
        let expected = self.expected();
        let pass = Pass {
            runtime,
            pool: &pool,
            cancel: self.cancel,
            meter: &meter,
            expected,
            compressed: plan.compressed,
        };
        let passed = pipeline::stream(&pass, source, first, plan.decoder, &mut disk)?;
        let published_bytes = passed.sums.bytes;
        writing.finish(Some(published_bytes));

        let verifying = progress::start(self.events, Phase::Verify, self.request.digest.to_string());
        let mut verified = disk.verify(expected.prove(&passed.sums)?);
        let mut pace = Pace::new(self.events, Phase::Verify, passed.virtual_size);
        verified.read_back(passed.virtual_size, self.cancel, |done| pace.tell(done))?;
        verifying.finish(Some(published_bytes));

        self.suit_sectors(&mut verified, passed.virtual_size)?;
        let committing = progress::start(self.events, Phase::Commit, self.request.label.clone());
        let committed = verified.commit()?;
        committing.finish(None);

        let written = Written {
            published_bytes,
            virtual_size: passed.virtual_size,
            digest: self.request.digest.to_string(),
            source: source.name(),
            resumed: source.resumed(),
            restarted: 0,
            data_bytes: committed.data_bytes,
            zeroed_bytes: committed.zeroed_bytes,
            seconds: self.started.elapsed().as_secs_f64(),
        };
        tracing::info!(
            image = self.request.label,
            published_bytes = written.published_bytes,
            virtual_size = written.virtual_size,
            digest = written.digest,
            seconds = written.seconds,
            "image written and verified"
        );
        Ok(written)
    }

    fn expected(&self) -> Expected<'_> {
        Expected { digest: &self.request.digest, signature: self.request.signature.as_ref() }
    }

    /// A registry says beforehand which digest its image has.
    fn compare_promise(&self, source: &Source<'_>) -> Result<(), Error> {
        let wanted = &self.request.digest;
        match source.promised() {
            Some(promised) if promised.algorithm() == wanted.algorithm() && promised != wanted => {
                Err(Error::Promise {
                    source_name: source.name(),
                    promised: promised.to_string(),
                    expected: wanted.to_string(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Refuses what can be refused before a byte is written.
    fn guard(
        &self,
        runtime: &Runtime,
        source: &mut Source<'_>,
        total: Option<u64>,
        first: &Buffer,
        disk: u64,
    ) -> Result<Plan, Error> {
        if first.is_empty() {
            return Err(Error::Empty);
        }
        let memory = self.transport.decoder_memory;
        let accepted = inspect::accept(self.request.format, &self.request.checks, first, memory)?;
        if let Some(compression) = accepted.compression {
            if let Some(image) = compression.least_size(first).filter(|image| *image > disk) {
                return Err(Error::TooLarge { image, disk });
            }
            let head = accepted.inside.unwrap_or_default();
            // All of the file is here, and nothing came out.
            if head.is_empty() && first.len() < CHUNK {
                return Err(Error::Empty);
            }
            let unseen = head.len() < LOOK && first.len() == CHUNK;
            let look = unseen.then(|| (self.request.format, self.request.checks.clone()));
            let decoder = Box::new(Unpack::new(compression, memory, look, self.cancel.clone()));
            return Ok(Plan {
                kind: accepted.kind,
                inside: Some(head),
                virtual_size: None,
                compressed: None,
                held: 0,
                decoder,
            });
        }
        if accepted.kind != Kind::Qcow2 {
            if let Some(image) = total.filter(|image| *image > disk) {
                return Err(Error::TooLarge { image, disk });
            }
            let decoder = Box::new(Raw);
            return Ok(Plan {
                kind: accepted.kind,
                inside: None,
                virtual_size: total,
                compressed: None,
                held: POOL_OF_PIECES,
                decoder,
            });
        }
        let planned = runtime.block_on(qcow2::plan(source, total, first, disk))?;
        Ok(Plan {
            kind: accepted.kind,
            inside: None,
            virtual_size: Some(planned.virtual_size),
            compressed: Some(planned.cluster),
            held: POOL_OF_PIECES + planned.lag,
            decoder: Box::new(planned.stream),
        })
    }
}

impl Job<'_> {
    /// Refuses a partition table that was made for other sectors than the disk's, unless it can be rewritten and may be.
    async fn guard_sectors(
        &self,
        source: &mut Source<'_>,
        total: Option<u64>,
        first: &Buffer,
        plan: &Plan,
        sink: &dyn BlockSink,
    ) -> Result<(), Error> {
        let start = sectors::START as u64;
        let seen;
        let head = match (&plan.inside, plan.kind) {
            (Some(inside), _) => inside.as_slice(),
            (None, Kind::Qcow2) => {
                // What can not be seen now is judged before the commit.
                let Ok(Some(bytes)) = qcow2::peek(source, total, first, 0, start).await else {
                    return Ok(());
                };
                seen = bytes;
                inspect::has_table(&self.request.checks, &seen)?;
                &seen
            }
            (None, _) => first,
        };
        let mismatch = match sectors::judge(head, plan.virtual_size, sink.logical_sector_size()) {
            Verdict::Suits => return Ok(()),
            Verdict::Other(mismatch) => mismatch,
            Verdict::Ask(offset, mismatch) => {
                let bytes = match (&plan.inside, plan.kind) {
                    (Some(_), _) => None,
                    (None, Kind::Qcow2) => {
                        qcow2::peek(source, total, first, offset, start).await.ok().flatten()
                    }
                    (None, _) => source.part(offset, start).await.ok().flatten(),
                };
                match bytes.is_some_and(|bytes| sectors::is_file_system(&bytes)) {
                    true => mismatch,
                    false => return Ok(()),
                }
            }
        };
        let translate = self.translation(mismatch)?;
        translate
            .judge(head, mismatch.table, sink.size())
            .map_err(|reason| Rule::SectorTranslation.broken(reason).into())
    }

    /// Lets the caller judge the disk image, where it wants to.
    fn preflight(
        &self,
        runtime: &Runtime,
        source: &mut Source<'_>,
        total: Option<u64>,
        first: &Buffer,
        plan: &Plan,
        disk: u64,
    ) -> Result<(), Error> {
        let Some(preflight) = &self.request.preflight else { return Ok(()) };
        let (packing, head) = match (&plan.inside, plan.kind) {
            (Some(inside), _) => match Compression::detect(first) {
                Some(compression) => (Packing::Stream(compression), inside.clone()),
                None => return Ok(()),
            },
            (None, Kind::Qcow2) => {
                let peek = qcow2::peek(source, total, first, 0, sectors::START as u64);
                (Packing::Qcow2, runtime.block_on(peek).ok().flatten().unwrap_or_default())
            }
            (None, _) => (Packing::Plain, first.get(..sectors::START).unwrap_or(first).to_vec()),
        };
        let (request, transport, cancel) = (self.request, self.transport, self.cancel);
        let mut image = Opened { runtime, request, transport, cancel, source, packing, total, first, head };
        preflight.judge(&mut image, disk).map_err(|reason| Rule::ConfigDrive.broken(reason).into())
    }

    /// Who rewrites a table that does not suit the disk; a refusal where nobody does.
    fn translation(&self, mismatch: Mismatch) -> Result<&dyn Translate, Error> {
        match &self.request.translate {
            Some(translate) if mismatch.is_gpt => Ok(translate.as_ref()),
            Some(_) | None => Err(mismatch.refusal().into()),
        }
    }

    /// Has the partition table rewritten for the disk's sectors, where it has to be: **what of it is not at the disk's ends is
    /// written at once**, and read back where all of the image is.
    fn suit_sectors(&self, disk: &mut Verified<'_>, image: u64) -> Result<(), Error> {
        if !self.request.checks.whole_disk {
            return Ok(());
        }
        let Verdict::Other(mismatch) = sectors::judge(disk.head(), Some(image), disk.sector_bytes()) else {
            return Ok(());
        };
        let translate = self.translation(mismatch)?;
        tracing::info!(
            image = self.request.label,
            from = mismatch.table,
            to = mismatch.disk,
            "rewriting the partition table for the disk's sector size"
        );
        let read_back = disk.is_read_back();
        let mut changes = disk.changes();
        let rewritten = translate.rewrite(&mut changes, mismatch.table, image);
        // A disk that can not be read is no fault of the image, and may have been taken for one with nothing on it.
        if let Some(error) = changes.failed() {
            return Err(error);
        }
        rewritten.map_err(|reason| Rule::SectorTranslation.broken(reason))?;
        changes.apply(read_back)
    }
}

/// Returns whether another pass helps that reads the tables beforehand.
fn is_late_table(error: &Error) -> bool {
    matches!(error, Error::Qcow2 { source: Qcow2Error::TablesTooLate, .. })
}

/// How an image goes onto the disk.
struct Plan {
    kind: Kind,
    /// The first bytes of the disk, where they come out of a compressed file.
    inside: Option<Vec<u8>>,
    virtual_size: Option<u64>,
    /// Bytes of a cluster, where clusters may be compressed.
    compressed: Option<usize>,
    /// Chunks that the decoder and pieces of the disk hold on to.
    held: usize,
    decoder: Box<dyn Decoder>,
}

struct Raw;

impl Decoder for Raw {
    fn push(&mut self, chunk: &Chunk, out: &Output) -> Result<(), Interrupt> {
        raw::push(chunk, out)
    }

    fn finish(self: Box<Self>, length: u64, _out: &Output) -> Result<u64, Interrupt> {
        Ok(length)
    }
}
