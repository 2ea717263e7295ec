//! A small QMP client: connect, say hello, run one command at a time. Source: QEMU, `docs/interop/qmp-spec`.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// QEMU answers at once, unless its host is badly overloaded.
const PATIENCE: Duration = Duration::from_secs(20);
/// A line longer than this is not QMP.
const LINE_LIMIT: u64 = 1 << 20;

/// Whether QEMU ended in the middle of the conversation.
pub fn hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// A connection to a running QEMU.
pub struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects and negotiates. `NotFound` and `ConnectionRefused` mean that no QEMU runs there.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut qmp = Self { reader: BufReader::new(stream) };
        if qmp.line()?.get("QMP").is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no QMP greeting"));
        }
        qmp.execute("qmp_capabilities")?;
        Ok(qmp)
    }

    /// Runs a command without arguments.
    pub fn execute(&mut self, command: &str) -> io::Result<Value> {
        let request = format!("{}\n", json!({ "execute": command }));
        self.reader.get_mut().write_all(request.as_bytes())?;
        loop {
            let reply = self.line()?;
            if let Some(value) = reply.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = reply.get("error") {
                let text = error.get("desc").and_then(Value::as_str).unwrap_or("unknown error");
                return Err(io::Error::other(format!("{command}: {text}")));
            }
            // Anything else is an event: nobody here waits for one.
        }
    }

    /// Resets the machine.
    pub fn reset(&mut self) -> io::Result<()> {
        self.execute("system_reset").map(|_| ())
    }

    /// Ends QEMU. It may close the connection before it answers: that is success too.
    pub fn quit(&mut self) -> io::Result<()> {
        match self.execute("quit") {
            Ok(_) => Ok(()),
            Err(e) if hung_up(&e) => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn line(&mut self) -> io::Result<Value> {
        let mut text = String::new();
        let mut limited = io::Read::take(&mut self.reader, LINE_LIMIT);
        if limited.read_line(&mut text)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}
