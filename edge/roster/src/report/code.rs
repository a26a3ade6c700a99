//! Owns the list of things that can be wrong, each with a stable identifier and its text in two languages.
//!
//! Invariant: an identifier, once released, keeps its meaning; support notes and tests refer to it.
//! Leaves out: what was expected instead, which depends on the column and stands in the finding.

use serde::ser::{Serialize, Serializer};

use super::Lang;

macro_rules! codes {
    ($($name:ident $id:literal $en:literal $ja:literal;)+) => {
        /// What is wrong with a file.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $en] $name,)+
        }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The stable identifier, in kebab case.
            pub const fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)+ }
            }

            /// What is wrong, for people.
            pub const fn text(self, lang: Lang) -> &'static str {
                match (self, lang) { $((Self::$name, Lang::En) => $en, (Self::$name, Lang::Ja) => $ja,)+ }
            }
        }
    };
}

codes! {
    // The package.
    Unreadable "unreadable" "the file could not be read" "ファイルを読み取れませんでした";
    NotAZip "not-a-zip" "not a zip file" "zipファイルではありません";
    ZipDamaged "zip-damaged" "the zip file is damaged or cut off" "zipファイルが壊れているか、途中で切れています";
    ZipCrc "zip-crc" "the contents do not match their checksum" "中身がチェックサムと一致しません";
    ZipEncrypted "zip-encrypted" "the entry is encrypted" "パスワード付き（暗号化）です";
    ZipMethod "zip-method" "the compression method is not supported" "対応していない圧縮方式です";
    ZipTooManyEntries "zip-too-many-entries" "too many entries in the zip file" "zipの中のファイルが多すぎます";
    ZipUnsafeName "zip-unsafe-name" "the entry's name points outside of the package" "zipの外を指す名前です";
    ZipRepeatedName "zip-repeated-name" "several entries have the same name" "同じ名前のファイルが複数入っています";
    ZipInFolder "zip-in-folder" "the CSV files lie in a folder" "CSVファイルがフォルダーの中に入っています";
    ZipRatio "zip-ratio" "implausibly compressed (zip bomb?)" "圧縮率が異常です（zip爆弾の疑い）";
    TooLarge "too-large" "too large" "大きすぎます";
    // Files and text.
    FileMissing "file-missing" "the file is missing" "ファイルがありません";
    FileUnlisted "file-unlisted" "the manifest does not list this file as bulk" "manifestでbulkになっていないファイルです";
    FileIgnored "file-ignored" "the file is not imported" "取り込み対象外のファイルです";
    DeltaUnsupported "delta-unsupported" "delta packages are not supported" "差分（delta）には対応していません";
    VersionUnknown "version-unknown" "unknown version" "未知の版です";
    EncodingUtf16 "encoding-utf16" "the file is UTF-16" "文字コードがUTF-16です";
    EncodingCp932 "encoding-cp932" "the file looks like Shift_JIS (CP932)" "文字コードがShift_JIS（CP932）のようです";
    EncodingUnknown "encoding-unknown" "the file is not UTF-8" "文字コードがUTF-8ではありません";
    Bom "bom" "the file begins with a byte order mark" "先頭にBOMがあります";
    // Tables.
    FileEmpty "file-empty" "the file has no header line" "見出し行がありません";
    ColumnMissing "column-missing" "the column is missing" "列がありません";
    ColumnOrder "column-order" "the columns are not in the order of the profile" "列の順番がプロファイルと違います";
    ColumnUnknown "column-unknown" "unknown column" "未知の列です";
    ColumnRepeated "column-repeated" "the column appears twice" "同じ列が2回あります";
    RowRagged "row-ragged" "the number of fields differs from the header" "項目の数が見出し行と違います";
    RowBlank "row-blank" "blank row, skipped" "空の行です（読み飛ばしました）";
    QuoteOpen "quote-open" "a quotation mark is never closed" "引用符（\"）が閉じていません";
    FieldTooLong "field-too-long" "the field is too long" "項目が長すぎます";
    ControlCharacter "control-character" "the field has a control character" "制御文字が含まれています";
    // Cells.
    ValueMissing "value-missing" "the field is empty" "値がありません";
    BadId "bad-id" "not an identifier" "識別子として使えません";
    NotUuid "not-uuid" "not a UUID version 4" "UUID v4ではありません";
    BadDate "bad-date" "not a date" "日付になっていません";
    BadWord "bad-word" "not one of the allowed values" "使える値ではありません";
    BadNumber "bad-number" "not a number that fits here" "数値が正しくありません";
    BadTitle "bad-title" "the title does not name its school year" "名称が年度の形になっていません";
    BadPhone "bad-phone" "not a telephone number" "電話番号の形ではありません";
    BadEmail "bad-email" "not a mail address" "メールアドレスの形ではありません";
    HalfWidthKana "half-width-kana" "half-width katakana" "半角カタカナです";
    BulkNotEmpty "bulk-not-empty" "must be empty in a bulk file" "bulkでは空にする項目です";
    NotKept "not-kept" "the value is not imported" "この値は取り込みません";
    SchoolCode "school-code" "not a school code" "学校コードの形ではありません";
    BoardCode "board-code" "not a code of an education board" "教育委員会コードの形ではありません";
    // Across cells and files.
    IdRepeated "id-repeated" "the identifier was used before in this file" "同じ識別子が既に使われています";
    RowRepeated "row-repeated" "the row says the same as an earlier one" "前の行と重複しています";
    ReferenceDangling "reference-dangling" "refers to something that is not there" "参照先がありません";
    SchoolWithoutDistrict "school-without-district" "the school has no education board" "学校の上位組織（教育委員会）がありません";
    DistrictWithParent "district-with-parent" "an education board has no parent" "教育委員会に上位組織が指定されています";
    SchoolMissing "school-missing" "there is no school" "学校がありません";
    DatesReversed "dates-reversed" "ends before it begins" "終了日が開始日より前です";
    ListLengths "list-lengths" "two lists must be of the same length" "2つのリストの個数が違います";
    PrimaryRoleMissing "primary-role-missing" "the user has no primary role" "主たる役割（primary）がありません";
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Goal: an identifier means one thing. Method: all identifiers differ and are kebab case.
    #[test]
    fn identifiers_are_unique() {
        let ids: BTreeSet<_> = Code::ALL.iter().map(|code| code.id()).collect();
        assert_eq!(ids.len(), Code::ALL.len());
        assert!(
            ids.iter().all(|id| id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'))
        );
    }
}
