//! TLS from files in PEM.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Where the certificate and its key are.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, then those that it was signed with.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A file that can not be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct TlsError {
    path: PathBuf,
    why: String,
}

impl TlsFiles {
    /// Reads both files.
    ///
    /// # Errors
    /// [`TlsError`] naming the file; never what stands in the key's.
    pub fn open(&self) -> Result<TlsAcceptor, TlsError> {
        let wrong = |path: &Path, why: String| TlsError { path: path.to_owned(), why };
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(|error| wrong(&self.certificate, error.to_string()))?;
        if certificates.is_empty() {
            return Err(wrong(&self.certificate, "holds no certificate in PEM".into()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|_| wrong(&self.key, "holds no private key in PEM, or can not be read".into()))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_no_client_auth())
            .and_then(|builder| builder.with_single_cert(certificates, key))
            .map_err(|error| wrong(&self.certificate, format!("does not go with {}: {error}", self.key.display())))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
