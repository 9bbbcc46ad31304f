"""Names of the folders and files of a semi-labeled raw dataset.

::

nnUNet_raw/Dataset510_Liver/
dataset.json          stock nnU-Net, plus an optional "spmc": {settings} block
imagesTr/ labelsTr/   labeled cases only
imagesUn/             unlabeled cases
labelsUn/             optional: labels withheld from training
imagesTs/ labelsTs/   test cases
split.json            which case went where and why
"""

IMAGES_TRAIN = "imagesTr"
LABELS_TRAIN = "labelsTr"
IMAGES_UNLABELED = "imagesUn"
LABELS_UNLABELED = "labelsUn"
IMAGES_TEST = "imagesTs"
LABELS_TEST = "labelsTs"
SPLIT_FILE = "split.json"
SETTINGS_KEY = "spmc"
