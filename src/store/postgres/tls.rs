//! TLS to Postgres with libpq's meanings of `sslmode`. Knows files and certificates, no URL and no socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::postgres::passfile::Env;

/// How much of the server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verify {
    /// Nothing: the line is encrypted, and whoever answers is believed.
    Nothing,
    /// That a trusted root signed it.
    Chain,
    /// That, and that it is for the host's name.
    ChainAndName,
}

/// The files of TLS. What the URL does not name is looked for where libpq does, in `~/.postgresql`.
#[derive(Debug)]
pub(super) struct TlsFiles {
    root: Option<Root>,
    /// The client's certificate, if it has one.
    pub(super) certificate: Option<PathBuf>,
    /// Its key.
    pub(super) key: Option<PathBuf>,
}

#[derive(Debug)]
enum Root {
    System,
    File(PathBuf),
}

impl TlsFiles {
    /// The files in the home directory, as far as they exist.
    pub(super) fn in_home(env: Env<'_>) -> Self {
        let dir = env("HOME").map(|home| Path::new(&home).join(".postgresql"));
        let file = |name: &str| dir.as_ref().map(|dir| dir.join(name)).filter(|path| path.is_file());
        Self {
            root: file("root.crt").map(Root::File),
            certificate: file("postgresql.crt"),
            key: file("postgresql.key"),
        }
    }

    /// Takes the value of `sslrootcert`.
    pub(super) fn set_root(&mut self, value: &str) {
        self.root = Some(if value == "system" { Root::System } else { Root::File(PathBuf::from(value)) });
    }

    /// Whether there is anything to check a server against.
    pub(super) fn has_root(&self) -> bool {
        self.root.is_some()
    }

    /// Whether the system's roots are to be trusted.
    pub(super) fn is_system_root(&self) -> bool {
        matches!(self.root, Some(Root::System))
    }

    /// The trusted certificates.
    fn roots(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        match &self.root {
            None => Err("`sslmode` verify-ca and verify-full need `sslrootcert` (a file, or `system`)".to_owned()),
            Some(Root::File(path)) => certificates(path),
            Some(Root::System) => {
                let found = rustls_native_certs::load_native_certs();
                if found.certs.is_empty() {
                    return Err("`sslrootcert=system`: this system has no trusted certificates".to_owned());
                }
                Ok(found.certs)
            }
        }
    }

    /// The client's certificates and key, if it has any.
    fn identity(&self) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, String> {
        match (&self.certificate, &self.key) {
            (None, _) => Ok(None),
            (Some(_), None) => Err("`sslcert` needs `sslkey`".to_owned()),
            (Some(certificate), Some(key)) => {
                check_key_permissions(key)?;
                let private = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| format!("{}: no usable private key: {error}", key.display()))?;
                Ok(Some((certificates(certificate)?, private)))
            }
        }
    }
}

/// What tokio-postgres makes TLS connections with; the error is for people.
pub(super) fn connector(verify: Verify, files: &TlsFiles, direct: bool) -> Result<MakeRustlsConnect, String> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    let mut pinned = Vec::new();
    if verify != Verify::Nothing {
        pinned = files.roots()?;
        let (usable, _) = roots.add_parsable_certificates(pinned.iter().cloned());
        if usable == 0 {
            return Err("`sslrootcert` holds no usable certificate".to_owned());
        }
    }
    let verifier = Verifier { verify, roots, pinned, provider: Arc::clone(&provider) };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match files.identity()? {
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, key).map_err(|error| format!("`sslcert`: {error}"))?
        }
        None => builder.with_no_client_auth(),
    };
    if direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(MakeRustlsConnect::new(config))
}

/// Checks what `sslmode` says, and always that the peer has the key of the certificate it shows.
#[derive(Debug)]
struct Verifier {
    verify: Verify,
    roots: RootCertStore,
    /// The same roots as they are: a self-signed server certificate may be its own root, as with OpenSSL.
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.verify != Verify::Nothing {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            if !self.pinned.iter().any(|root| root == end_entity) {
                let algorithms = self.provider.signature_verification_algorithms.all;
                verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
            }
            if self.verify == Verify::ChainAndName {
                verify_server_name(&certificate, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The certificates of a PEM file; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |error: rustls::pki_types::pem::Error| format!("{}: no usable certificate: {error}", path.display());
    let found = CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if found.is_empty() { Err(format!("{}: it holds no certificate", path.display())) } else { Ok(found) }
}

/// As libpq: a private key is not for others, except that root's may be for a group.
fn check_key_permissions(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let allowed = if metadata.uid() == 0 { 0o740 } else { 0o700 };
    if metadata.mode() & 0o777 & !allowed != 0 {
        return Err(format!("{}: its permissions must be 0600 or less (0640 if root owns it)", path.display()));
    }
    Ok(())
}
