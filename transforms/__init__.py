"""The engine carried over an archive: Beam transforms, storage, and the tables that runs leave behind."""
