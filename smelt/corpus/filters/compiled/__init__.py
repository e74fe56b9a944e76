"""The filters' measures as compiled loops over batches of characters; they need numba, and equal the plain ones."""
