//! A certificate authority and a certificate for this machine, made by the `openssl` program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Ours instead of the machine's, whose defaults differ from one distribution to the next.
const OPENSSL_CONFIG: &str = "\
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1, DNS:localhost
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
";

/// The files, whether they exist or not.
#[derive(Debug)]
pub struct Certificates {
    dir: PathBuf,
    /// Whom a client has to trust.
    pub ca: PathBuf,
    /// What the server shows.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Certificates {
    /// Their names in a folder of their own.
    pub fn within(dir: PathBuf) -> Self {
        Self {
            ca: dir.join("ca.crt"),
            certificate: dir.join("server.crt"),
            key: dir.join("server.key"),
            dir,
        }
    }

    /// Makes them, unless they are there: clients go on trusting a server that starts again.
    ///
    /// # Errors
    /// If the program is missing or refuses.
    pub fn make(&self) -> anyhow::Result<()> {
        if self.certificate.exists() {
            return Ok(());
        }
        std::fs::create_dir_all(&self.dir).context("making the folder of the certificates")?;
        let config = self.dir.join("openssl.cnf");
        std::fs::write(&config, OPENSSL_CONFIG).context("writing openssl.cnf")?;
        let ca_key = self.dir.join("ca.key");
        let request = |subject: &str, section: &str, key: &Path, certificate: &Path| {
            let mut command = Command::new("openssl");
            command
                .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
                .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"])
                .args(["-subj", subject, "-extensions", section, "-config"])
                .arg(&config)
                .arg("-keyout")
                .arg(key)
                .arg("-out")
                .arg(certificate);
            command
        };
        run(&mut request("/CN=tests CA", "ca", &ca_key, &self.ca))?;
        run(
            request("/CN=localhost", "server", &self.key, &self.certificate)
                .arg("-CA")
                .arg(&self.ca)
                .arg("-CAkey")
                .arg(&ca_key),
        )
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("openssl is not there: cargo xtask setup")?;
    if !output.status.success() {
        bail!("openssl: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
