"""Make digits_logits.npy: train a classifier of handwritten digits and keep its logits of the images it never saw.

python -m pip install "scikit-learn==1.9.1"
python make_digits_logits.py
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

images, labels = load_digits(return_X_y=True)
images /= 16  # pixels are 0 to 16
train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.5, random_state=0, stratify=labels)
model = LogisticRegression(C=10, max_iter=1000).fit(train_x, train_y)
logits = model.decision_function(test_x).astype(np.float32)
np.save(Path(__file__).with_name("digits_logits.npy"), logits)
print(f"{logits.shape} {logits.dtype} from {logits.min():.1f} to {logits.max():.1f}")
print(f"right: {np.mean(logits.argmax(-1) == test_y):.4f} of the images")
