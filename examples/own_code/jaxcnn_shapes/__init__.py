"""Parts of one's own for jaxcnn: a network, a loss, an augmentation, an optimiser, a schedule, a source, figures."""
