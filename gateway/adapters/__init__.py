"""Fine-tuned adapters: where they come from, what is known of them, which answer now. Knows no Ray and no engine."""
