"""Operations on tensors that know nothing of models or data."""
