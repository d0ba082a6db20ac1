"""The one training engine: DeepSpeed, for pretraining, distillation and fine-tuning."""
