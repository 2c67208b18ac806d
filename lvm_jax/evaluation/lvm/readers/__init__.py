"""Reads public data sets, in the formats they are downloaded in, as episodes of benchmarks: one module per family.

| module | readers | needs below the root |
|---|---|---|
| `voc` | `Pascal5i`, `VocDetection` | VOC2012: JPEGImages/, SegmentationClass/, Annotations/, ImageSets/ |
| `coco` | `CocoDetection`, `CocoKeypoints` | annotations/{instances,person_keypoints}_SPLIT.json, SPLIT/ |
| `pascal3d` | `Pascal3D` | Images/CLASS_SOURCE/, Annotations/CLASS_SOURCE/, Image_sets/CLASS_SOURCE_SPLIT.txt |
| `davis` | `Davis` | JPEGImages/480p/NAME/, Annotations/480p/NAME/, ImageSets/YEAR/SPLIT.txt |
| `folders` | `Colorization` | image files, such as ImageNet's SPLIT/CLASS/*.JPEG |
| `folders` | `AnnotatedFolders` | KEY/image.png and KEY/ROLE.png: this project's own, such as rendered scenes |
"""
